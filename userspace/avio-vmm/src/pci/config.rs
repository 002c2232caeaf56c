// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Configuration space of a conventional PCI function: bytes, and which bits of them the guest may write.

/// Length of the space; beyond it, in the memory-mapped window, everything reads as all ones.
const SIZE: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_MASTER: u8 = 1 << 2;
const COMMAND_INTX_OFF: u8 = 1 << 2;
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
}

/// The space.
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bar_size: u32,
    last_link: usize,
    free: usize,
}

impl ConfigSpace {
    /// A function without BAR and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bar_size: 0,
            last_link: CAPABILITIES,
            free: FIRST_CAPABILITY,
        };
        space.bytes[0x00..0x02].copy_from_slice(&identity.vendor.to_le_bytes());
        space.bytes[0x02..0x04].copy_from_slice(&identity.device.to_le_bytes());
        space.bytes[0x09..0x0c].copy_from_slice(&identity.class.to_le_bytes()[..3]);
        space.bytes[0x2c..0x2e].copy_from_slice(&identity.vendor.to_le_bytes());
        space.bytes[0x2e..0x30].copy_from_slice(&identity.device.to_le_bytes());
        space.writable[COMMAND] = COMMAND_MEMORY | COMMAND_MASTER;
        space.writable[COMMAND + 1] = COMMAND_INTX_OFF;
        // Cache line size and interrupt line: for software's own use.
        space.writable[0x0c] = 0xff;
        space.writable[0x3c] = 0xff;
        space
    }

    /// Makes BAR 0 a 32-bit memory BAR of `size` bytes, a power of two, at `address`, and switches it on.
    pub fn set_bar(&mut self, size: u32, address: u32) {
        self.bar_size = size;
        self.bytes[BAR0..BAR0 + 4].copy_from_slice(&address.to_le_bytes());
        self.writable[BAR0..BAR0 + 4].copy_from_slice(&(!(size - 1)).to_le_bytes());
        self.bytes[COMMAND] |= COMMAND_MEMORY;
    }

    /// Adds a capability and returns its offset. `body` is what follows its two header bytes; `writable` says which
    /// of its bits the guest may write.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.free;
        self.bytes[at] = id;
        self.bytes[at + 2..at + 2 + body.len()].copy_from_slice(body);
        self.writable[at + 2..at + 2 + writable.len()].copy_from_slice(writable);
        self.bytes[self.last_link] = at as u8;
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.last_link = at + 1;
        self.free = (at + 2 + body.len()).next_multiple_of(4);
        at as u16
    }

    /// Where BAR 0 lies; `None` while memory accesses are switched off.
    pub fn bar(&self) -> Option<u64> {
        let address = u32::from_le_bytes([
            self.bytes[BAR0],
            self.bytes[BAR0 + 1],
            self.bytes[BAR0 + 2],
            self.bytes[BAR0 + 3],
        ]);
        let on = self.bytes[COMMAND] & COMMAND_MEMORY != 0 && self.bar_size != 0;
        on.then_some(u64::from(address))
    }

    /// Whether the function may reach memory by itself.
    pub fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_MASTER != 0
    }

    /// Where in BAR 0 an address lies.
    pub fn offset_in_bar(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.bar()?)?;
        (offset < u64::from(self.bar_size)).then_some(offset)
    }

    /// A 16-bit register.
    pub fn u16_at(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Reads.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Writes what may be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let (Some(old), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *old = *old & !mask | byte & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x4156,
            device: 0x1001,
            class: 0x01_80_00,
        });
        space.set_bar(0x1_0000, 0xc000_0000);
        space
    }

    fn u32_at(space: &ConfigSpace, offset: u16) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn identity_is_where_pci_wants_it_and_fixed() {
        let mut space = space();
        space.write(0, &[0xff; 4]);
        space.write(8, &[0xff; 4]);
        assert_eq!(u32_at(&space, 0), 0x1001_4156);
        assert_eq!(u32_at(&space, 8), 0x0180_0000);
        assert_eq!(u32_at(&space, 0x2c), 0x1001_4156);
    }

    #[test]
    fn sizing_a_bar_shows_its_length_and_keeps_its_kind() {
        let mut space = space();
        space.write(0x10, &u32::MAX.to_le_bytes());
        assert_eq!(u32_at(&space, 0x10), 0xffff_0000);
        space.write(0x14, &u32::MAX.to_le_bytes());
        assert_eq!(u32_at(&space, 0x14), 0, "there is no BAR 1");
        assert_eq!(u32_at(&space, 0x30), 0, "there is no ROM");
    }

    #[test]
    fn a_bar_moves_and_switches_off() {
        let mut space = space();
        assert_eq!(space.bar(), Some(0xc000_0000));
        space.write(0x10, &0xd123_4567u32.to_le_bytes());
        assert_eq!(space.bar(), Some(0xd123_0000));
        assert_eq!(space.offset_in_bar(0xd123_ffff), Some(0xffff));
        assert_eq!(space.offset_in_bar(0xd124_0000), None);
        assert_eq!(space.offset_in_bar(0xd122_ffff), None);
        space.write(4, &[0, 0]);
        assert_eq!(space.bar(), None);
        assert_eq!(space.offset_in_bar(0xd123_0000), None);
    }

    #[test]
    fn bus_master_is_off_until_set() {
        let mut space = space();
        assert!(!space.bus_master());
        space.write(4, &[0x06, 0x04]);
        assert!(space.bus_master());
        assert_eq!(space.bar(), Some(0xc000_0000));
        space.write(4, &[0x02, 0x04]);
        assert!(!space.bus_master());
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut space = space();
        let first = space.add_capability(0x11, &[1; 10], &[]);
        let second = space.add_capability(0x09, &[2; 3], &[0xff]);
        assert_eq!(u32_at(&space, 4) >> 16 & 0x10, 0x10);
        assert_eq!(u32_at(&space, 0x34), u32::from(first));
        assert_eq!(space.u16_at(first), second << 8 | 0x11);
        assert_eq!(space.u16_at(second), 0x09);
        assert_eq!(second % 4, 0);
        space.write(second + 2, &[0xaa, 0xaa]);
        assert_eq!(
            space.u16_at(second + 2),
            0x02aa,
            "only the writable byte changed"
        );
    }

    #[test]
    fn beyond_the_end_reads_all_ones() {
        let mut space = space();
        space.write(0xfe, &[0; 4]);
        assert_eq!(u32_at(&space, 0xfe), 0xffff_0000);
        assert_eq!(u32_at(&space, 0x100), u32::MAX);
    }
}
