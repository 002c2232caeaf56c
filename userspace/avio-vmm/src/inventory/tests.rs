// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What may be attached, and what the guest knows of it, without a machine.

use super::*;
use crate::backing::Identity;
use std::fs::File;

pub fn lun(minor: u32, identity: &str, shared: bool) -> Lun {
    let facts = Facts {
        identity: Identity {
            text: identity.into(),
            own: true,
        },
        serial: "OWN".into(),
        wwn: [0; 16],
        scsi: false,
        partition: false,
        sequence: 1,
        sectors: 8,
        image: String::new(),
    };
    let disk = Disk {
        path: "/dev/x".into(),
        shared,
        ..Disk::default()
    };
    Lun {
        disk,
        backing: Backing {
            file: Arc::new(File::open("/dev/null").unwrap()),
            number: Number { major: 7, minor },
            facts,
        },
        cgroup: None,
        lost: false,
    }
}

pub fn inventory() -> Inventory {
    let adapter = plan::Adapter {
        id: "a".into(),
        queues: 1,
        weight: None,
        without: 0,
        disks: BTreeMap::new(),
    };
    Inventory::open(vec![adapter], State::volatile(), None).unwrap()
}

#[test]
fn s12_a_disk_is_foreign_where_the_guest_knows_another() {
    let mut inventory = inventory();
    let (first, second) = (lun(0, "wwn 1", false), lun(1, "wwn 2", false));
    assert!(!inventory.is_foreign(0, 4, &first), "the guest knows none");
    inventory.meet(0, 4, &first);
    inventory.meet(0, 4, &second);
    assert!(!inventory.is_foreign(0, 4, &first));
    assert!(inventory.is_foreign(0, 4, &second));
    assert!(!inventory.is_foreign(0, 5, &second), "another place");
}

#[test]
fn s12_a_nameless_disk_is_another_when_the_device_is() {
    let mut inventory = inventory();
    let like = |own, sequence| {
        let mut lun = lun(0, "device 7:0 of 8 sectors", false);
        lun.backing.facts.identity.own = own;
        lun.backing.facts.sequence = sequence;
        lun
    };
    inventory.meet(0, 4, &like(false, 1));
    inventory.adapters[0].luns.insert(4, like(false, 1));
    assert!(!inventory.is_another((0, 4), &like(false, 1)));
    assert!(inventory.is_another((0, 4), &like(false, 2)));
    assert!(
        !inventory.is_another((0, 4), &like(true, 2)),
        "it has a name"
    );
}

#[test]
fn s12_what_was_open_all_the_time_is_what_it_was_however_it_looks() {
    let mut inventory = inventory();
    let old = lun(0, "file /a", false);
    let like = |identity, sequence| {
        let mut lun = lun(0, identity, false);
        lun.backing.file = old.backing.file.clone();
        lun.backing.facts.sequence = sequence;
        lun
    };
    inventory.meet(0, 4, &old);
    inventory.adapters[0].luns.insert(4, like("file /a", 1));
    let another = |inventory: &Inventory, new| inventory.is_another((0, 4), &new);
    assert!(!another(&inventory, like("file /b", 1)));
    assert!(another(&inventory, like("file /b", 2)), "another medium");
    let anew = lun(0, "file /b", false);
    assert!(another(&inventory, anew), "it was opened anew");
    inventory.adapters[0].luns.insert(4, like("file /b", 1));
    let named_so_now = like("file /a", 1);
    assert!(another(&inventory, named_so_now), "its gate was closed");
}

#[test]
fn s12_a_doubt_lasts_until_the_guest_knows() {
    let mut inventory = inventory();
    let disk = lun(0, "device 7:0 of 8 sectors", false);
    inventory.meet(0, 4, &disk);
    assert!(!inventory.is_foreign(0, 4, &disk));
    assert!(inventory.doubt((0, 4), &disk.backing.facts).unwrap());
    assert!(inventory.is_foreign(0, 4, &disk));
    assert!(!inventory.doubt((0, 4), &disk.backing.facts).unwrap());
    let text = &disk.backing.facts.identity.text;
    inventory.state.know("a", 4, text).unwrap();
    assert!(!inventory.is_foreign(0, 4, &disk));
}

#[test]
fn s12_a_disk_that_went_away_while_it_was_opened_is_not_taken() {
    let gone = lun(1, "wwn 1", false);
    let error = inventory().adopt((0, 4), gone.disk, gone.backing).err();
    let text = error.unwrap().to_string();
    assert!(text.contains("disk /dev/x went away"), "{text}");
}

#[test]
fn a_weight_without_cgroups_is_refused() {
    let error = inventory().weigh(0, None, 7).unwrap_err();
    assert!(error.to_string().contains("--cgroup"));
}

#[test]
fn s9_one_device_twice_is_found_unless_both_are_shared() {
    let mut inventory = inventory();
    let luns = &mut inventory.adapters[0].luns;
    luns.insert(3, lun(0, "x", false));
    luns.insert(4, lun(1, "y", true));
    let found = |minor, shared| {
        let number = Number { major: 7, minor };
        inventory.taken(number, shared).map(|(_, number)| number)
    };
    assert_eq!(found(0, true), Some(3));
    assert_eq!(found(1, false), Some(4));
    assert_eq!(found(1, true), None);
    assert_eq!(found(2, false), None);
}

#[test]
fn a_serial_number_that_was_given_hides_the_devices_own() {
    let mut lun = lun(0, "x", false);
    assert_eq!(lun.serial(), "OWN");
    lun.disk.serial = Some("GIVEN".into());
    assert_eq!(lun.serial(), "GIVEN");
}
