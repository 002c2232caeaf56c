// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};

/// Manages the AVIO storage adapters of this guest.
#[derive(Debug, Parser)]
#[command(name = "gvsdmgr", version, after_help = EXAMPLES)]
pub struct Args {
    /// Do not ask before what cannot be undone
    #[arg(short)]
    pub force: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// What to do
    #[arg(value_enum)]
    pub command: Command,

    /// The adapter
    #[arg(short = 'D', value_name = "/dev/gvsdN")]
    pub device: PathBuf,

    /// Which LUNs: lun=all, lun=/dev/avioX (lun_dsf=/dev/avioX is the same), lun=NUMBER, tgt=all or tgt=NUMBER. Each LUN
    /// is a target of its own here, of the same number: tgt=all means all LUNs. What is for one LUN, replace_dsk and
    /// abort, takes lun= or lun_dsf=
    #[arg(short, value_name = "QUALIFIER")]
    pub qualifier: Option<Qualifier>,

    /// With task_mgmt: what to do
    #[arg(short, value_enum, value_name = "TASK")]
    pub task: Option<Task>,

    /// With task_mgmt -t abort: which request; the kernel lists them in /sys/kernel/debug/block/avioX/hctxQUEUE/busy
    #[arg(short, value_name = "QUEUE:TAG", value_parser = request)]
    pub request: Option<(u32, u32)>,
}

const EXAMPLES: &str = "\
Examples:
  gvsdmgr get_info -D /dev/gvsd0
  gvsdmgr get_info -D /dev/gvsd0 -q lun=all
  gvsdmgr clear_stat -D /dev/gvsd0 -q lun=/dev/avioa
  gvsdmgr replace_dsk -D /dev/gvsd0 -q lun=/dev/avioa
  gvsdmgr -f task_mgmt -D /dev/gvsd0 -q lun=/dev/avioa -t reset
  gvsdmgr -f task_mgmt -D /dev/gvsd0 -q tgt=all -t reset
  gvsdmgr get_stat -D /dev/gvsd0 -q tgt=3";

impl Args {
    /// An option that is only for task_mgmt, given with another command.
    pub fn misplaced(&self) -> Option<&'static str> {
        match (self.command, self.task, self.request) {
            (Command::TaskMgmt, ..) => None,
            (_, Some(_), _) => Some("-t"),
            (_, None, Some(_)) => Some("-r"),
            (_, None, None) => None,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Command {
    /// Show the adapter, or the LUNs that -q names
    #[value(name = "get_info")]
    GetInfo,
    /// Show what was counted since the start or the last clear_stat
    #[value(name = "get_stat")]
    GetStat,
    /// Count from zero again
    #[value(name = "clear_stat")]
    ClearStat,
    /// Accept the disk that has replaced a LUN's
    #[value(name = "replace_dsk")]
    ReplaceDsk,
    /// Give a task management command: see -t
    #[value(name = "task_mgmt")]
    TaskMgmt,
}

/// A task management command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Mark one request of a LUN as aborted: see -r. If the disk carries it out after all, it ends as ever; if it fails,
    /// it is sent again
    Abort,
    /// Reset each of the LUNs: mark all its requests so
    Reset,
}

/// Which LUNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// All of the adapter.
    All,
    /// The one with this disk.
    Disk(PathBuf),
    /// The one with this number.
    Number(u32),
    /// Those of the target with this number: the LUN of the same one.
    Target(u32),
}

impl FromStr for Qualifier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').unwrap_or_default();
        match (kind, value.parse()) {
            ("lun" | "tgt", _) if value == "all" => Ok(Self::All),
            ("lun" | "lun_dsf", _) if value.starts_with('/') => Ok(Self::Disk(value.into())),
            ("lun", Ok(number)) => Ok(Self::Number(number)),
            ("tgt", Ok(number)) => Ok(Self::Target(number)),
            _ => Err(
                "it should be lun=all, lun=/dev/avioX, lun_dsf=/dev/avioX, lun=NUMBER, tgt=all or tgt=NUMBER"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all LUNs"),
            Self::Disk(path) => write!(f, "{}", path.display()),
            Self::Number(number) => write!(f, "LUN {number}"),
            Self::Target(number) => write!(f, "target {number}"),
        }
    }
}

fn request(text: &str) -> Result<(u32, u32), String> {
    let parse = |part: &str| part.parse::<u32>().ok();
    text.split_once(':')
        .and_then(|(queue, tag)| Some((parse(queue)?, parse(tag)?)))
        .ok_or_else(|| "it should be two numbers: QUEUE:TAG".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn takes_the_lines_of_the_manual() {
        let args = parse("gvsdmgr -f replace_dsk -D /dev/gvsd1 -q lun=/dev/avioc").unwrap();
        assert!(args.force && args.command == Command::ReplaceDsk);
        assert_eq!(args.qualifier, Some(Qualifier::Disk("/dev/avioc".into())));
        let args = parse("gvsdmgr clear_stat -D /dev/gvsd0 -q lun_dsf=/dev/avioa").unwrap();
        assert_eq!(args.qualifier, Some(Qualifier::Disk("/dev/avioa".into())));
        let args = parse("gvsdmgr get_info -D /dev/gvsd0 -q lun=all").unwrap();
        assert_eq!(args.qualifier, Some(Qualifier::All));
        let args = parse("gvsdmgr task_mgmt -D /dev/gvsd0 -q lun=3 -t abort -r 1:17").unwrap();
        assert_eq!(args.request, Some((1, 17)));
        assert_eq!(args.qualifier, Some(Qualifier::Number(3)));
        let args = parse("gvsdmgr -f task_mgmt -D /dev/gvsd0 -q tgt=3 -t reset").unwrap();
        assert_eq!(args.qualifier, Some(Qualifier::Target(3)));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for line in [
            "gvsdmgr get_info",
            "gvsdmgr get_infos -D /dev/gvsd0",
            "gvsdmgr get_info -D /dev/gvsd0 -q lun=",
            "gvsdmgr get_info -D /dev/gvsd0 -q lun=-1",
            "gvsdmgr get_info -D /dev/gvsd0 -q tgt=",
            "gvsdmgr get_info -D /dev/gvsd0 -q tgt=-1",
            "gvsdmgr get_info -D /dev/gvsd0 -q tgt=4294967296",
            "gvsdmgr get_info -D /dev/gvsd0 -q tgt=/dev/avioa",
            "gvsdmgr get_info -D /dev/gvsd0 -q lun_dsf=3",
            "gvsdmgr get_info -D /dev/gvsd0 -q all",
            "gvsdmgr task_mgmt -D /dev/gvsd0 -q lun=3 -t abort -r 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_form_of_a_qualifier_is_told() {
        let help = Args::command().render_long_help().to_string();
        let error = parse("gvsdmgr get_info -D /dev/gvsd0 -q lun=").unwrap_err();
        for form in "lun=all lun=/dev lun_dsf=/dev lun=NUMBER tgt=all tgt=NUMBER".split(' ') {
            assert!(help.contains(form), "{form} is missing in {help}");
            let error = error.to_string();
            assert!(error.contains(form), "{form} is missing in {error}");
        }
    }

    #[test]
    fn tasks_and_requests_are_for_task_mgmt() {
        let misplaced = |line: &str| parse(line).unwrap().misplaced();
        for command in ["get_info", "get_stat", "clear_stat", "replace_dsk"] {
            let line = format!("gvsdmgr {command} -D /dev/gvsd0 -q lun=3");
            assert_eq!(misplaced(&line), None);
            assert_eq!(misplaced(&format!("{line} -t reset")), Some("-t"));
            assert_eq!(misplaced(&format!("{line} -r 1:17")), Some("-r"));
        }
        let line = "gvsdmgr task_mgmt -D /dev/gvsd0 -q lun=3 -t abort -r 1:17";
        assert_eq!(misplaced(line), None);
    }
}
