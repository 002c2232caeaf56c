// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Devices as sysfs tells of them, made up.

use super::*;
use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;

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
    let facts = Facts::read(&sys, Number { major: 8, minor: 1 }, None);
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

/// An image file.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("avio-{}-{name}.img", std::process::id()));
        write(&path, "old").unwrap();
        Self(path)
    }

    /// What a loop device over it is taken for, as if it was made just now.
    fn identity(&self) -> (String, bool) {
        identity("image", &[("loop/backing_file", self.0.to_str().unwrap())])
    }

    /// Another file gets its path.
    fn exchange(&self) {
        let other = self.0.with_extension("new");
        write(&other, "new").unwrap();
        std::fs::rename(other, &self.0).unwrap();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn s12_an_image_is_known_by_the_file_and_not_by_its_path_alone() {
    let image = Image::new("exchanged");
    let (first, own) = image.identity();
    let path = image.0.display();
    assert!(
        own && first.starts_with(&format!("file {path} inode ")),
        "{first}"
    );
    write(&image.0, "written in place, and longer").unwrap();
    assert_eq!(image.identity(), (first.clone(), true));
    image.exchange();
    let (second, _) = image.identity();
    assert_ne!(first, second);
    // The next file may have the same inode number.
    std::fs::remove_file(&image.0).unwrap();
    write(&image.0, "new").unwrap();
    let (third, _) = image.identity();
    assert!(third != first && third != second, "{third}");
}

#[test]
fn an_image_that_cannot_be_looked_at_is_known_by_its_path() {
    let image = Image::new("deleted");
    let deleted = format!("{} (deleted)\n", image.0.display());
    let path = (format!("file {}", image.0.display()), true);
    // The file that has the name by now is another.
    assert_eq!(
        identity("deleted", &[("loop/backing_file", &deleted)]),
        path
    );
    std::fs::remove_file(&image.0).unwrap();
    assert_eq!(image.identity(), path);
    let node = identity("node", &[("loop/backing_file", "/dev/null\n")]);
    assert_eq!(node, ("file /dev/null".into(), true));
}

#[test]
fn an_open_device_has_the_image_that_it_had() {
    let image = Image::new("open");
    let sys = sysfs("open", &[("loop/backing_file", image.0.to_str().unwrap())]);
    let read = |before| Facts::read(&sys, Number { major: 8, minor: 1 }, before).unwrap();
    let before = read(None);
    image.exchange();
    assert_eq!(read(Some(&before)), before);
    write(sys.join("block/disk/diskseq"), "10\n").unwrap();
    assert_ne!(read(Some(&before)).identity, before.identity);
    std::fs::remove_dir_all(&sys).unwrap();
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
fn a_partition_is_seen_to_be_resized_and_nothing_else_is() {
    let number = Number { major: 8, minor: 1 };
    let part = [("part/partition", "1\n"), ("part/size", "64\n")];
    for (name, attributes, size, resized) in [
        ("resized", &part[..], "disk/part/size", true),
        ("resized-disk-of", &part[..], "disk/size", false),
        ("resized-disk", &[][..], "disk/size", false),
    ] {
        let sys = sysfs(name, attributes);
        let facts = Facts::read(&sys, number, None).unwrap();
        assert!(!facts.is_resized(&sys, number), "{name}");
        write(sys.join("block").join(size), "128\n").unwrap();
        assert_eq!(facts.is_resized(&sys, number), resized, "{name}");
        // It is gone, which the kernel tells.
        std::fs::remove_dir_all(&sys).unwrap();
        assert!(!facts.is_resized(&sys, number), "{name}");
    }
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
    assert_eq!(Facts::read(Path::new("/nowhere"), number, None), None);
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
