// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which adapters the guest gets, and which disk is which LUN of which of them. The order of the command line alone
//! decides, so that every start of the same line gives the same PCI addresses and numbers.

use std::collections::BTreeMap;

use avio_abi::MAX_LUNS;
use avio_control::Disk;

use crate::args::{Args, DiskSpec, HbaSpec};

/// Most adapters: the devices of a PCI bus but for the host bridge.
const MAX_ADAPTERS: usize = 31;

/// What the adapter is called that is there without `--hba`.
const ONLY: &str = "hba0";

/// An adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Its ID.
    pub id: String,
    /// Its queue pairs.
    pub queues: u32,
    /// Its weight among the adapters.
    pub weight: Option<u32>,
    /// Features that it does without.
    pub without: u64,
    /// Its disks by LUN.
    pub disks: BTreeMap<u32, Disk>,
}

/// Why the specifications do not fit together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many adapters.
    #[error("{0} adapters are too many; a guest can have {MAX_ADAPTERS}")]
    TooManyAdapters(usize),
    /// Two adapters with one ID.
    #[error("--hba id={0} is there twice; give each adapter its own ID")]
    SameId(String),
    /// A disk for no adapter.
    #[error("--disk {path}: there is no --hba id={id}; there are {known}")]
    NoHba {
        /// The disk.
        path: String,
        /// What it asks for.
        id: String,
        /// What there is.
        known: String,
    },
    /// A disk for any of several adapters.
    #[error("--disk {path}: which adapter? Say hba= one of {known}")]
    WhichHba {
        /// The disk.
        path: String,
        /// What there is.
        known: String,
    },
    /// Two disks with one LUN.
    #[error("LUN {lun} of adapter {id} is given to two disks; give each its own")]
    SameLun {
        /// The adapter.
        id: String,
        /// The LUN.
        lun: u32,
    },
    /// A weight without cgroups.
    #[error(
        "{0}: weight= needs --cgroup, the cgroup in which those of adapters and LUNs are made"
    )]
    NoCgroup(String),
    /// More disks than LUNs.
    #[error("too many disks for adapter {0}: it has {MAX_LUNS} LUNs; make another one with --hba")]
    TooManyDisks(String),
}

/// The adapters in their order.
pub fn plan(args: &Args) -> Result<Vec<Adapter>, Error> {
    weights_have_cgroups(args)?;
    let mut adapters = adapters(args)?;
    let chosen: Vec<(usize, &DiskSpec)> = args
        .disks
        .iter()
        .map(|spec| Ok((choose(&adapters, spec)?, spec)))
        .collect::<Result<_, Error>>()?;
    for (index, spec) in &chosen {
        let adapter = &mut adapters[*index];
        if let Some(lun) = spec.lun {
            if adapter.disks.insert(lun, spec.disk.clone()).is_some() {
                let id = adapter.id.clone();
                return Err(Error::SameLun { id, lun });
            }
        }
    }
    for (index, spec) in chosen.iter().filter(|(_, spec)| spec.lun.is_none()) {
        let adapter = &mut adapters[*index];
        let lun = free(&adapter.disks)
            .next()
            .ok_or_else(|| Error::TooManyDisks(adapter.id.clone()))?;
        adapter.disks.insert(lun, spec.disk.clone());
    }
    Ok(adapters)
}

/// The LUNs that are free, the lowest first.
pub fn free<T>(luns: &BTreeMap<u32, T>) -> impl Iterator<Item = u32> + '_ {
    (0..MAX_LUNS).filter(|lun| !luns.contains_key(lun))
}

fn weights_have_cgroups(args: &Args) -> Result<(), Error> {
    if args.cgroup.is_some() {
        return Ok(());
    }
    if let Some(hba) = args.hbas.iter().find(|hba| hba.weight.is_some()) {
        return Err(Error::NoCgroup(format!("--hba id={}", hba.id)));
    }
    if let Some(spec) = args.disks.iter().find(|spec| spec.disk.weight.is_some()) {
        let path = spec.disk.path.display();
        return Err(Error::NoCgroup(format!("--disk path={path}")));
    }
    Ok(())
}

fn adapters(args: &Args) -> Result<Vec<Adapter>, Error> {
    let mut specs = args.hbas.clone();
    if specs.is_empty() && (!args.disks.is_empty() || args.control.is_some()) {
        specs.push(HbaSpec {
            id: ONLY.into(),
            queues: None,
            weight: None,
            without: 0,
        });
    }
    if specs.len() > MAX_ADAPTERS {
        return Err(Error::TooManyAdapters(specs.len()));
    }
    let mut adapters: Vec<Adapter> = Vec::new();
    for spec in specs {
        if adapters.iter().any(|adapter| adapter.id == spec.id) {
            return Err(Error::SameId(spec.id));
        }
        adapters.push(Adapter {
            id: spec.id,
            queues: spec.queues.unwrap_or_else(|| args.queue_count()),
            weight: spec.weight,
            without: spec.without,
            disks: BTreeMap::new(),
        });
    }
    Ok(adapters)
}

fn choose(adapters: &[Adapter], spec: &DiskSpec) -> Result<usize, Error> {
    let path = || spec.disk.path.display().to_string();
    let known = || {
        let ids: Vec<&str> = adapters.iter().map(|adapter| adapter.id.as_str()).collect();
        ids.join(", ")
    };
    match &spec.hba {
        None if adapters.len() == 1 => Ok(0),
        None => Err(Error::WhichHba {
            path: path(),
            known: known(),
        }),
        Some(id) => {
            let found = adapters.iter().position(|adapter| adapter.id == *id);
            found.ok_or_else(|| Error::NoHba {
                path: path(),
                id: id.clone(),
                known: known(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn planned(line: &str) -> Result<Vec<Adapter>, Error> {
        let words = format!("avio-vmm --kernel k --cpus 2 {line}");
        plan(&Args::try_parse_from(words.split_whitespace()).unwrap())
    }

    fn paths(adapter: &Adapter) -> Vec<(u32, String)> {
        let path = |disk: &Disk| disk.path.display().to_string();
        let disks = adapter.disks.iter();
        disks.map(|(lun, disk)| (*lun, path(disk))).collect()
    }

    #[test]
    fn there_is_one_adapter_if_anything_needs_it() {
        assert_eq!(planned("").unwrap(), []);
        let adapters = planned("--control /run/x").unwrap();
        assert_eq!((adapters[0].id.as_str(), adapters[0].queues), ("hba0", 2));
        assert_eq!(planned("--disk path=/dev/a").unwrap().len(), 1);
    }

    #[test]
    fn free_luns_are_filled_around_the_chosen_ones() {
        let adapters =
            planned("--disk path=a --disk path=b,lun=0 --disk path=c --disk path=d,hba=hba0")
                .unwrap();
        let wanted = [(0, "b"), (1, "a"), (2, "c"), (3, "d")];
        assert_eq!(
            paths(&adapters[0]),
            wanted.map(|(lun, path)| (lun, path.to_string()))
        );
    }

    #[test]
    fn disks_find_their_adapters() {
        let adapters = planned(
            "--hba id=x --hba id=y,queues=7 --disk path=a,hba=y --disk path=b,hba=x,lun=0 --disk path=c,hba=y,lun=0",
        )
        .unwrap();
        assert_eq!(paths(&adapters[0]), [(0, "b".to_string())]);
        assert_eq!(paths(&adapters[1]), [(0, "c".to_string()), (1, "a".into())]);
        assert_eq!((adapters[0].queues, adapters[1].queues), (2, 7));
    }

    #[test]
    fn weights_need_a_cgroup() {
        let adapters =
            planned("--cgroup /x --hba id=a,weight=7 --disk path=d,weight=9 --disk path=e")
                .unwrap();
        let luns: Vec<_> = adapters[0].disks.values().map(|disk| disk.weight).collect();
        assert_eq!((adapters[0].weight, luns), (Some(7), vec![Some(9), None]));
        let refused = |line| planned(line).unwrap_err().to_string();
        assert!(refused("--hba id=a,weight=7").contains("--hba id=a: weight= needs --cgroup"));
        assert!(refused("--disk path=d,weight=9").contains("--disk path=d: weight= needs --cgroup"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |line| planned(line).unwrap_err().to_string();
        assert!(refused("--hba id=x --hba id=x").contains("id=x is there twice"));
        assert!(refused("--hba id=x --disk path=a,hba=y").contains("there are x"));
        assert!(refused("--hba id=x --hba id=y --disk path=a").contains("one of x, y"));
        assert!(
            refused("--disk path=a,lun=4 --disk path=b,lun=4").contains("LUN 4 of adapter hba0")
        );
        let many: Vec<String> = (0..32).map(|n| format!("--hba id=h{n}")).collect();
        assert!(refused(&many.join(" ")).contains("32 adapters"));
    }

    #[test]
    fn an_adapter_takes_256_disks_and_no_more() {
        let disks = |count| vec!["--disk path=a"; count].join(" ");
        let adapters = planned(&disks(256)).unwrap();
        assert_eq!(adapters[0].disks.len(), 256);
        let error = planned(&disks(257)).unwrap_err();
        assert_eq!(error, Error::TooManyDisks("hba0".into()));
    }
}
