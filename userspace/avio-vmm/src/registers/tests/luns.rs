// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! LUNs: how the guest sees them change, and which it uses.

use super::*;

#[test]
fn a_changed_lun_is_announced_once() {
    let mut registers = registers();
    registers.set_lun(1, disk(0));
    registers.set_lun(1, disk(0));
    assert_eq!(registers.backend.announced, 1);
    assert_eq!(registers.read(reg::GENERATION), 1);
    assert_eq!(registers.read(reg::LUN_INFO + 128), lun_flags::PRESENT);
    registers.write(reg::GENERATION, 7);
    assert_eq!(registers.read(reg::GENERATION), 1);
}

#[test]
fn luns_in_use_are_a_bit_each() {
    let mut registers = registers();
    registers.write(reg::LUNS_IN_USE + 28, 1 << 31);
    assert!(registers.in_use(255));
    assert!(!registers.in_use(254));
    assert!(!registers.in_use(256));
    assert_eq!(registers.read(reg::LUNS_IN_USE + 28), 1 << 31);
}

#[test]
fn a_guest_clings_to_a_lun_that_is_gone_until_it_has_looked_and_uses_it_no_more() {
    let mut registers = ready();
    registers.set_lun(1, disk(0));
    start(&mut registers);
    registers.write(reg::LUNS_IN_USE, 1 << 1);
    registers.set_lun(1, LunInfo::default());
    assert!(registers.clings_to(1));
    assert_eq!(registers.read(reg::LUN_INFO + 128), 0);
    assert!(registers.clings_to(1), "it is in use");
    registers.write(reg::LUNS_IN_USE, 0);
    assert!(!registers.clings_to(1));
    registers.set_lun(1, disk(0));
    registers.set_lun(1, LunInfo::default());
    assert!(registers.clings_to(1), "nobody has looked");
    registers.write(reg::COMMAND, command::RESET);
    assert!(!registers.clings_to(1), "there is no driver");
}
