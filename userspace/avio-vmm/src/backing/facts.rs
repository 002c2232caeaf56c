// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What sysfs tells of a block device, and by what it can be told from any other.

use std::fs::{canonicalize, read_to_string};
use std::path::Path;

/// Longest serial number that a guest can be shown.
const SERIAL: usize = 40;

/// Number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

/// What tells a backing from any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As text.
    pub text: String,
    /// Whether the device brought it. If not, it is made of number and size, and says little.
    pub own: bool,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which it is.
    pub identity: Identity,
    /// The serial number for the guest; empty if there is none.
    pub serial: String,
    /// Its world-wide name as bytes; zero if it has none.
    pub wwn: [u8; 16],
    /// A whole SCSI disk.
    pub scsi: bool,
    /// Sequence number of the disk.
    pub sequence: u64,
    /// Capacity in sectors.
    pub sectors: u64,
}

impl Facts {
    /// Reads them; `None` if there is no such device. `sys` is where sysfs is mounted.
    pub fn read(sys: &Path, number: Number) -> Option<Self> {
        let Number { major, minor } = number;
        let node = canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        let sectors = text(&node, "size")?.parse().ok()?;
        let part = text(&node, "partition");
        let disk = match part {
            Some(_) => node.parent()?.to_path_buf(),
            None => node.clone(),
        };
        let wwid = text(&disk, "wwid").or_else(|| text(&disk, "device/wwid"));
        let serial = text(&disk, "serial").or_else(|| text(&disk, "device/serial"));
        let of_disk = disk_identity(&disk, &wwid, &serial);
        let own = match &part {
            Some(part) => partition_identity(&node, part, of_disk),
            None => of_disk,
        };
        let identity = Identity {
            own: own.is_some(),
            text: own.unwrap_or_else(|| format!("device {major}:{minor} of {sectors} sectors")),
        };
        Some(Self {
            identity,
            serial: shown_serial(&disk, serial, part.as_deref()),
            wwn: wwid
                .as_deref()
                .and_then(wwn)
                .filter(|_| part.is_none())
                .unwrap_or_default(),
            scsi: part.is_none() && disk.join("device/scsi_level").exists(),
            sequence: text(&disk, "diskseq").and_then(|text| text.parse().ok())?,
            sectors,
        })
    }
}

/// The number of the disk that a partition is on; of anything else its own.
pub fn whole(sys: &Path, number: Number) -> Number {
    let Number { major, minor } = number;
    let of_disk = || {
        let node = canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        text(&node, "partition")?;
        let device = text(node.parent()?, "dev")?;
        let (major, minor) = device.split_once(':')?;
        Some(Number {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    };
    of_disk().unwrap_or(number)
}

/// An attribute, if it is there and not empty.
fn text(node: &Path, attribute: &str) -> Option<String> {
    let text = read_to_string(node.join(attribute)).ok()?;
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!trimmed.is_empty()).then(|| trimmed.to_string())
}

/// The partition's disk, and which it is there: by its UUID, or else by its number. A copy of the disk has the same UUIDs,
/// so that they say enough only where the disk itself has nothing to be known by.
fn partition_identity(node: &Path, number: &str, disk: Option<String>) -> Option<String> {
    let uevent = text(node, "uevent").unwrap_or_default();
    let uuid = uevent
        .lines()
        .find_map(|line| line.strip_prefix("PARTUUID="));
    match disk {
        Some(disk) => Some(format!("{disk} partition {}", uuid.unwrap_or(number))),
        None => Some(format!("partition {}", uuid?)),
    }
}

/// The first thing that the device has of: world-wide name, serial number, UUID of what it is made by, image file.
fn disk_identity(disk: &Path, wwid: &Option<String>, serial: &Option<String>) -> Option<String> {
    let named = |kind: &str, value: &Option<String>| Some(format!("{kind} {}", value.as_ref()?));
    let file = || {
        let path = text(disk, "loop/backing_file")?;
        // An image without a name is the same image.
        let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
        Some(format!("file {path}"))
    };
    named("wwn", wwid)
        .or_else(|| named("serial", serial))
        .or_else(|| named("dm", &text(disk, "dm/uuid")))
        .or_else(|| named("md", &text(disk, "md/uuid")))
        .or_else(file)
}

/// The serial number as the guest can be shown it, where links are named by it: the disk's own, or the UUID of what it is
/// made by, and what tells apart those that have it in common, the namespaces of an NVMe controller and the partitions of
/// a disk.
fn shown_serial(disk: &Path, serial: Option<String>, part: Option<&str>) -> String {
    let made = || text(disk, "dm/uuid").or_else(|| text(disk, "md/uuid"));
    let own = serial.or_else(made).unwrap_or_default();
    let printable = own.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    let mut shown = printable.collect::<String>().trim().to_string();
    if shown.is_empty() {
        return shown;
    }
    if let Some(namespace) = text(disk, "nsid") {
        shown += &format!("-n{namespace}");
    }
    if let Some(part) = part {
        shown += &format!("-part{part}");
    }
    shortened(shown)
}

/// At most [`SERIAL`] characters. What tells two long ones apart can be anywhere in them: LVM's begin alike, and those of
/// kpartx end alike. So a digest of the whole stands for the beginning. It must be the same in every version.
fn shortened(serial: String) -> String {
    if serial.len() <= SERIAL {
        return serial;
    }
    // FNV-1a.
    let digest = serial
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let digest = format!("{digest:016x}-");
    let end = &serial[serial.len() - (SERIAL - digest.len())..];
    digest + end
}

/// The bytes of a NAA, EUI-64 or NGUID name as sysfs writes them.
fn wwn(wwid: &str) -> Option<[u8; 16]> {
    let digits = wwid
        .strip_prefix("naa.")
        .or_else(|| wwid.strip_prefix("eui."))?;
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let mut name = [0; 16];
    if digits.len() % 2 != 0
        || digits.is_empty()
        || digits.len() > 2 * name.len()
        || !digits.is_ascii()
    {
        return None;
    }
    for (at, byte) in name.iter_mut().take(digits.len() / 2).enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A sysfs with one device 8:1 made of these attributes.
    fn sysfs(name: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let sys = std::env::temp_dir().join(format!("avio-{}-{name}", std::process::id()));
        let disk = sys.join("block/disk");
        create_dir_all(sys.join("dev/block")).unwrap();
        for (attribute, value) in [("size", "2048\n"), ("diskseq", "9\n")]
            .iter()
            .chain(attributes)
        {
            let file = disk.join(attribute);
            create_dir_all(file.parent().unwrap()).unwrap();
            write(file, value).unwrap();
        }
        let node = if disk.join("part/partition").exists() {
            "disk/part"
        } else {
            "disk"
        };
        symlink(sys.join("block").join(node), sys.join("dev/block/8:1")).unwrap();
        sys
    }

    fn facts(name: &str, attributes: &[(&str, &str)]) -> Facts {
        let sys = sysfs(name, attributes);
        let facts = Facts::read(&sys, Number { major: 8, minor: 1 });
        std::fs::remove_dir_all(sys).unwrap();
        facts.unwrap()
    }

    fn identity(name: &str, attributes: &[(&str, &str)]) -> (String, bool) {
        let identity = facts(name, attributes).identity;
        (identity.text, identity.own)
    }

    #[test]
    fn a_scsi_disk() {
        let facts = facts(
            "scsi",
            &[
                ("device/wwid", "naa.5000c500a1b2c3d4\n"),
                ("device/serial", "  AB12\u{1} \n"),
                ("device/scsi_level", "7\n"),
            ],
        );
        assert_eq!(facts.identity.text, "wwn naa.5000c500a1b2c3d4");
        assert_eq!((facts.serial.as_str(), facts.scsi), ("AB12", true));
        assert_eq!(
            facts.wwn[..9],
            [0x50, 0, 0xc5, 0, 0xa1, 0xb2, 0xc3, 0xd4, 0]
        );
        assert_eq!((facts.sectors, facts.sequence), (2048, 9));
    }

    #[test]
    fn others_are_known_by_what_they_have() {
        let own = |text: &str| (text.to_string(), true);
        assert_eq!(identity("virtio", &[("serial", "S1\n")]), own("serial S1"));
        assert_eq!(identity("dm", &[("dm/uuid", "LVM-x\n")]), own("dm LVM-x"));
        assert_eq!(
            identity("empty", &[("dm/uuid", "\n"), ("md/uuid", "u\n")]),
            own("md u")
        );
        assert_eq!(
            identity("loop", &[("loop/backing_file", "/a b\n")]),
            own("file /a b")
        );
        let made_up = "device 8:1 of 2048 sectors".to_string();
        assert_eq!(identity("bare", &[]), (made_up, false));
    }

    #[test]
    fn a_partition_is_not_its_disk() {
        let part = [
            ("part/partition", "1\n"),
            ("part/size", "64\n"),
            ("wwid", "eui.0011223344556677\n"),
        ];
        let facts = facts("part", &part);
        assert_eq!(facts.identity.text, "wwn eui.0011223344556677 partition 1");
        assert_eq!((facts.wwn, facts.sectors, facts.sequence), ([0; 16], 64, 9));
    }

    #[test]
    fn a_partition_is_on_a_disk() {
        let (part, disk) = (Number { major: 8, minor: 1 }, Number { major: 8, minor: 0 });
        let dev = ("dev", "8:0\n");
        for (name, attributes, found) in [
            ("on", &[dev, ("part/partition", "1\n")][..], disk),
            ("whole", &[dev][..], part),
            ("untold", &[("part/partition", "1\n")][..], part),
        ] {
            let sys = sysfs(name, attributes);
            assert_eq!(whole(&sys, part), found, "{name}");
            std::fs::remove_dir_all(sys).unwrap();
        }
    }

    #[test]
    fn a_copied_partition_is_not_the_one_that_was_copied() {
        let part = [
            ("part/partition", "1\n"),
            ("part/size", "64\n"),
            ("part/uevent", "MAJOR=8\nPARTUUID=ab-01\n"),
        ];
        let on = |wwid: &'static str| {
            let attributes = [&part[..], &[("wwid", wwid)]].concat();
            identity("partuuid", &attributes)
        };
        let own = |text: &str| (text.to_string(), true);
        assert_eq!(on("naa.50\n"), own("wwn naa.50 partition ab-01"));
        assert_eq!(on("naa.51\n"), own("wwn naa.51 partition ab-01"));
        assert_eq!(identity("partuuid-only", &part), own("partition ab-01"));
        let made_up = "device 8:1 of 64 sectors".to_string();
        assert_eq!(identity("nameless", &part[..2]), (made_up, false));
    }

    #[test]
    fn what_shares_a_serial_number_shows_one_of_its_own() {
        let serial = |name: &str, attributes: &[(&str, &str)]| facts(name, attributes).serial;
        let disk = ("device/serial", " S1 \n");
        let part = |number| [disk, ("part/partition", number), ("part/size", "64\n")];
        assert_eq!(serial("part-1", &part("1\n")), "S1-part1");
        assert_eq!(serial("part-2", &part("2\n")), "S1-part2");
        assert_eq!(serial("nvme", &[disk, ("nsid", "7\n")]), "S1-n7");
        let [first, second, third] = part("2\n");
        let namespace = [first, second, third, ("nsid", "7\n")];
        assert_eq!(serial("nvme-part", &namespace), "S1-n7-part2");
        assert_eq!(serial("crypt", &[("dm/uuid", "CRYPT-x\n")]), "CRYPT-x");
        assert_eq!(serial("raid", &[("md/uuid", "0a-1b\n")]), "0a-1b");
        assert_eq!(serial("image", &[("loop/backing_file", "/a\n")]), "");
        assert_eq!(
            serial("blank", &[("serial", " \u{1} \n"), ("nsid", "1\n")]),
            ""
        );
    }

    #[test]
    fn long_serial_numbers_are_shortened_and_still_differ() {
        let most = "x".repeat(SERIAL);
        assert_eq!(shortened(most.clone()), most);
        // The digest of the whole was taken with another program.
        let wwn = "mpath-3600508b400105e210000900000490000";
        let first = shortened(format!("part1-{wwn}"));
        assert_eq!(first, "ff022fcdf4cb4119-0105e210000900000490000");
        assert_eq!(first.len(), SERIAL);
        assert_ne!(first, shortened(format!("part2-{wwn}")));
        let group = "LVM-".to_string() + &"g".repeat(32);
        let volume = |last| shortened(group.clone() + &"v".repeat(31) + last);
        assert_ne!(volume("1"), volume("2"));
        assert_eq!(volume("1"), volume("1"));
    }

    #[test]
    fn a_device_that_is_not_there_has_none() {
        let number = Number { major: 8, minor: 1 };
        assert_eq!(Facts::read(Path::new("/nowhere"), number), None);
    }

    #[test]
    fn only_whole_names_are_world_wide() {
        assert_eq!(
            wwn("eui.00112233445566778899aabbccddeeff").unwrap()[15],
            0xff
        );
        for odd in [
            "t10.ATA disk",
            "nvme.1",
            "naa.",
            "naa.123",
            "naa.12345g",
            "eui.00112233445566778899aabbccddeeff00",
        ] {
            assert_eq!(wwn(odd), None, "{odd}");
        }
    }
}
