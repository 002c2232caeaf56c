// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! MSI-X: the table, the pending bits, and when a vector is connected to its interrupt.
//!
//! Policy only; what "connected" means is behind [`Vectors`]. A vector that is masked, or whose function is, is
//! disconnected, and its source remembers that it was signalled until it is connected again.

const ENTRY: u64 = 16;
const MASKED: u32 = 1;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// Capability ID.
pub const CAPABILITY: u8 = 0x11;

/// Where an interrupt goes: what a device would write, and to which address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// A vector could not be connected. Who refused it has told the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotConnected;

/// The sources of interrupts, one for each vector.
pub trait Vectors {
    /// Delivers the vector's signals, those that are waiting first, as `message`. If it fails, all is as before: a
    /// vector that was connected still delivers its former message.
    fn connect(&mut self, vector: usize, message: Message) -> Result<(), NotConnected>;
    /// Keeps the vector's signals back.
    fn disconnect(&mut self, vector: usize);
    /// Whether a disconnected vector has a signal waiting.
    fn pending(&self, vector: usize) -> bool;
}

#[derive(Clone, Copy, Default)]
struct Entry {
    message: Message,
    control: u32,
    connected: Option<Message>,
}

/// The state of a function's MSI-X.
pub struct Msix<V> {
    entries: Vec<Entry>,
    vectors: V,
    enabled: bool,
}

/// The capability's bytes after its header, and which of their bits the guest may write.
pub fn capability(vectors: u16, bar: u8, table: u32, pending: u32) -> ([u8; 10], [u8; 2]) {
    let mut body = [0; 10];
    body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
    body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
    body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
    (body, (ENABLE | FUNCTION_MASK).to_le_bytes())
}

impl<V: Vectors> Msix<V> {
    /// A table of `count` masked vectors.
    pub fn new(count: usize, vectors: V) -> Self {
        let entry = Entry {
            control: MASKED,
            ..Entry::default()
        };
        Self {
            entries: vec![entry; count],
            vectors,
            enabled: false,
        }
    }

    /// Takes the capability's message control register.
    pub fn set_control(&mut self, control: u16) {
        self.enabled = control & ENABLE != 0 && control & FUNCTION_MASK == 0;
        for vector in 0..self.entries.len() {
            self.apply(vector);
        }
    }

    /// Reads a 32-bit word of the table.
    pub fn read_table(&self, offset: u64) -> u32 {
        let Some((vector, word)) = self.locate(offset) else {
            return u32::MAX;
        };
        let Some(entry) = self.entries.get(vector) else {
            return u32::MAX;
        };
        match word {
            0 => entry.message.address as u32,
            1 => (entry.message.address >> 32) as u32,
            2 => entry.message.data,
            _ => entry.control,
        }
    }

    /// Writes a 32-bit word of the table.
    pub fn write_table(&mut self, offset: u64, value: u32) {
        let Some((vector, word)) = self.locate(offset) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(vector) else {
            return;
        };
        let address = entry.message.address;
        match word {
            0 => entry.message.address = address & !0xffff_ffff | u64::from(value & !3),
            1 => entry.message.address = address & 0xffff_ffff | u64::from(value) << 32,
            2 => entry.message.data = value,
            _ => entry.control = value & MASKED,
        }
        self.apply(vector);
    }

    /// Reads a 32-bit word of the pending bits.
    pub fn read_pending(&self, offset: u64) -> u32 {
        let first = usize::try_from((offset / 4).saturating_mul(32)).unwrap_or(usize::MAX);
        let mut word = 0;
        for (bit, entry) in self.entries.iter().skip(first).take(32).enumerate() {
            if entry.connected.is_none() && self.vectors.pending(first + bit) {
                word |= 1 << bit;
            }
        }
        word
    }

    fn locate(&self, offset: u64) -> Option<(usize, u64)> {
        Some((usize::try_from(offset / ENTRY).ok()?, offset % ENTRY / 4))
    }

    fn apply(&mut self, vector: usize) {
        let Some(entry) = self.entries.get_mut(vector) else {
            return;
        };
        let wanted = (self.enabled && entry.control & MASKED == 0).then_some(entry.message);
        if wanted == entry.connected {
            return;
        }
        match wanted {
            // Otherwise the guest's next write to the entry tries again.
            Some(message) if self.vectors.connect(vector, message).is_err() => return,
            Some(_) => {}
            None => self.vectors.disconnect(vector),
        }
        entry.connected = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Event {
        Connect(usize, Message),
        Disconnect(usize),
    }

    #[derive(Default)]
    struct Recorder {
        events: Vec<Event>,
        waiting: Vec<usize>,
        fails: bool,
    }

    impl Vectors for Recorder {
        fn connect(&mut self, vector: usize, message: Message) -> Result<(), NotConnected> {
            if self.fails {
                return Err(NotConnected);
            }
            self.events.push(Event::Connect(vector, message));
            Ok(())
        }
        fn disconnect(&mut self, vector: usize) {
            self.events.push(Event::Disconnect(vector));
        }
        fn pending(&self, vector: usize) -> bool {
            self.waiting.contains(&vector)
        }
    }

    const MESSAGE: Message = Message {
        address: 0xfee0_1000,
        data: 0x4021,
    };

    fn msix() -> Msix<Recorder> {
        Msix::new(65, Recorder::default())
    }

    fn fill(msix: &mut Msix<Recorder>, vector: u64) {
        msix.write_table(vector * 16, MESSAGE.address as u32);
        msix.write_table(vector * 16 + 4, 0);
        msix.write_table(vector * 16 + 8, MESSAGE.data);
    }

    fn events(msix: &mut Msix<Recorder>) -> Vec<Event> {
        std::mem::take(&mut msix.vectors.events)
    }

    #[test]
    fn nothing_is_connected_until_enabled_and_unmasked() {
        let mut msix = msix();
        fill(&mut msix, 3);
        msix.write_table(3 * 16 + 12, 0);
        assert_eq!(events(&mut msix), []);
        msix.set_control(ENABLE | FUNCTION_MASK);
        assert_eq!(events(&mut msix), []);
        msix.set_control(ENABLE);
        assert_eq!(events(&mut msix), [Event::Connect(3, MESSAGE)]);
    }

    #[test]
    fn masking_disconnects_and_unmasking_connects_again() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        fill(&mut msix, 0);
        msix.write_table(12, 0);
        msix.write_table(12, 1);
        msix.write_table(12, 1);
        msix.write_table(12, 0);
        let expected = [
            Event::Connect(0, MESSAGE),
            Event::Disconnect(0),
            Event::Connect(0, MESSAGE),
        ];
        assert_eq!(events(&mut msix), expected);
    }

    #[test]
    fn the_function_mask_holds_every_vector() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        for vector in [0, 64] {
            fill(&mut msix, vector);
            msix.write_table(vector * 16 + 12, 0);
        }
        events(&mut msix);
        msix.set_control(ENABLE | FUNCTION_MASK);
        assert_eq!(
            events(&mut msix),
            [Event::Disconnect(0), Event::Disconnect(64)]
        );
    }

    #[test]
    fn a_changed_message_is_passed_on() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        fill(&mut msix, 1);
        msix.write_table(16 + 12, 0);
        events(&mut msix);
        msix.write_table(16 + 8, 0x55);
        assert_eq!(
            events(&mut msix),
            [Event::Connect(
                1,
                Message {
                    data: 0x55,
                    ..MESSAGE
                }
            )]
        );
        msix.write_table(16 + 8, 0x55);
        assert_eq!(events(&mut msix), []);
    }

    #[test]
    fn a_vector_that_could_not_be_connected_is_not_taken_for_it() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        fill(&mut msix, 0);
        msix.vectors.fails = true;
        msix.vectors.waiting = vec![0];
        msix.write_table(12, 0);
        assert_eq!(msix.read_pending(0), 1, "its signals still wait");
        msix.write_table(12, 1);
        assert_eq!(events(&mut msix), [], "there was nothing to disconnect");
        msix.vectors.fails = false;
        msix.write_table(12, 0);
        assert_eq!(events(&mut msix), [Event::Connect(0, MESSAGE)]);
        assert_eq!(msix.read_pending(0), 0);
    }

    #[test]
    fn a_refused_change_leaves_the_former_message() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        fill(&mut msix, 0);
        msix.write_table(12, 0);
        events(&mut msix);
        msix.vectors.fails = true;
        msix.write_table(8, 0x55);
        msix.write_table(8, MESSAGE.data);
        assert_eq!(events(&mut msix), [], "it was connected all the time");
        msix.write_table(12, 1);
        assert_eq!(events(&mut msix), [Event::Disconnect(0)]);
    }

    #[test]
    fn pending_bits_show_signals_that_wait() {
        let mut msix = msix();
        msix.set_control(ENABLE);
        msix.vectors.waiting = vec![2, 33, 64];
        assert_eq!(
            [0, 4, 8, 12].map(|at| msix.read_pending(at)),
            [1 << 2, 1 << 1, 1, 0]
        );
        fill(&mut msix, 2);
        msix.write_table(2 * 16 + 12, 0);
        assert_eq!(msix.read_pending(0), 0, "a connected vector is not pending");
    }

    #[test]
    fn the_table_reads_back_and_ends() {
        let mut msix = msix();
        fill(&mut msix, 64);
        let words = [0, 4, 8, 12].map(|at| msix.read_table(64 * 16 + at));
        assert_eq!(words, [MESSAGE.address as u32, 0, MESSAGE.data, MASKED]);
        msix.write_table(65 * 16, 7);
        assert_eq!(msix.read_table(65 * 16), u32::MAX);
        assert_eq!(msix.read_pending(u64::MAX), 0);
    }
}
