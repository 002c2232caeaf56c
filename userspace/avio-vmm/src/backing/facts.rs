// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What sysfs tells of a block device, and by what it can be told from any other.

use std::fs::{canonicalize, metadata, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

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
    /// A partition.
    pub partition: bool,
    /// Sequence number of the disk.
    pub sequence: u64,
    /// Capacity in sectors.
    pub sectors: u64,
    /// What tells the file behind a loop device from others of its path; empty if nothing does.
    pub image: String,
}

impl Facts {
    /// Reads them; `None` if there is no such device. `sys` is where sysfs is mounted. If the device was looked at `before`, and
    /// has the same medium, its image file is what it was: the way to it may hang, and its name may be another file's by now.
    pub fn read(sys: &Path, number: Number, before: Option<&Self>) -> Option<Self> {
        let Number { major, minor } = number;
        let node = node(sys, number)?;
        let sectors = sectors(&node)?;
        let part = text(&node, "partition");
        let disk = match part {
            Some(_) => node.parent()?.to_path_buf(),
            None => node.clone(),
        };
        let wwid = text(&disk, "wwid").or_else(|| text(&disk, "device/wwid"));
        let serial = text(&disk, "serial").or_else(|| text(&disk, "device/serial"));
        let sequence = text(&disk, "diskseq").and_then(|text| text.parse().ok())?;
        let same = before.filter(|before| before.sequence == sequence);
        let image = same.map_or_else(|| image(&disk), |before| Some(before.image.clone()));
        let image = image.unwrap_or_default();
        let of_disk = disk_identity(&disk, &wwid, &serial, &image);
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
            partition: part.is_some(),
            sequence,
            sectors,
            image,
        })
    }

    /// Whether the device of these facts is a partition and has another size by now. Nothing but the size is read: the disk may
    /// be asked for other attributes.
    pub fn is_resized(&self, sys: &Path, number: Number) -> bool {
        let now = || sectors(&node(sys, number)?);
        self.partition && now().is_some_and(|sectors| sectors != self.sectors)
    }
}

/// The number of the disk that a partition is on; of anything else its own.
pub fn whole(sys: &Path, number: Number) -> Number {
    let of_disk = || {
        let node = node(sys, number)?;
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

/// Where the attributes of a device are.
fn node(sys: &Path, number: Number) -> Option<PathBuf> {
    let Number { major, minor } = number;
    canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()
}

/// Its capacity.
fn sectors(node: &Path) -> Option<u64> {
    text(node, "size")?.parse().ok()
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
fn disk_identity(
    disk: &Path,
    wwid: &Option<String>,
    serial: &Option<String>,
    image: &str,
) -> Option<String> {
    let named = |kind: &str, value: &Option<String>| Some(format!("{kind} {}", value.as_ref()?));
    let file = || {
        let path = text(disk, "loop/backing_file")?;
        // An image without a name is the same image.
        let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
        Some(format!("file {path}{image}"))
    };
    named("wwn", wwid)
        .or_else(|| named("serial", serial))
        .or_else(|| named("dm", &text(disk, "dm/uuid")))
        .or_else(|| named("md", &text(disk, "md/uuid")))
        .or_else(file)
}

/// What tells a loop device's file from others that have had its path, and stays over a reboot and when the file is written.
/// An inode number alone is given to the next file when one is deleted; two files can be made at the same time, as clocks of
/// file systems tick. Those without a time of birth often make up inode numbers as well, so that nothing is told there. The
/// same holds for a device's node, which each boot makes anew. The file cannot be asked when its path has ` (deleted)` at the
/// end: another may have its name.
fn image(disk: &Path) -> Option<String> {
    let file = metadata(text(disk, "loop/backing_file")?).ok()?;
    let born = file.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let (inode, seconds, rest) = (file.ino(), born.as_secs(), born.subsec_nanos());
    file.is_file()
        .then(|| format!(" inode {inode} born {seconds}.{rest:09}"))
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
mod tests;
