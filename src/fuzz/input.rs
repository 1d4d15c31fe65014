//! How a fuzz target makes what it needs of plain bytes. Knows nothing of the broker.

/// Ends a field of an input; `\n` is part of what is tested too often.
const FIELD_END: u8 = 0xff;

/// Bytes that are taken from the front.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte; 0 when there is none.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// The bytes up to the next 0xff, which no UTF-8 has.
    pub(crate) fn field(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == FIELD_END);
        let field = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = self.0.get(field.len() + 1..).unwrap_or_default();
        field
    }

    /// The same as text; what is no UTF-8 ends it.
    pub(crate) fn text(&mut self) -> &'a str {
        text(self.field())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// As much of the bytes as is UTF-8.
pub(crate) fn text(bytes: &[u8]) -> &str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// The bytes as reads of a socket could give them: pieces of one byte and more; the seed says
/// where they end.
pub(crate) fn reads(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut random = SplitMix(u64::from(seed));
    let longest = 1 << (seed % 8);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = (1 + random.below(longest)).min(rest.len());
        let (read, left) = rest.split_at(len);
        rest = left;
        (!read.is_empty()).then_some(read)
    })
}

/// The generator splitmix64: the same numbers from the same seed, everywhere.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // The rest is below a usize.
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}
