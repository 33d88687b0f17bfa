//! Bytes read as a series of choices, so that a fuzzer that changes a byte changes one choice.

/// The bytes that are left. Where none is left, each choice is the first one.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What no choice was read from yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes that many bytes, or as many as there are.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(super) fn word(&mut self) -> u32 {
        let mut word = [0; 4];
        let taken = self.take(4);
        word[..taken.len()].copy_from_slice(taken);
        u32::from_le_bytes(word)
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// A number below `end`, or 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let number = if end <= 256 { u32::from(self.byte()) } else { self.word() };
        number as usize % end.max(1)
    }

    /// A number that is likely to be at the edge of something.
    pub(super) fn edge(&mut self, around: usize) -> u64 {
        let around = around as u64;
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => around,
            3 => around.wrapping_add(1),
            4 => around.wrapping_sub(1),
            5 => u64::from(u32::MAX),
            6 => u64::MAX,
            7 => 1 << 31,
            8 => self.long(),
            9 => u64::from(self.word()),
            _ => u64::from(self.word()) % (around + 2),
        }
    }
}
