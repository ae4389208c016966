//! What kernels found wrong in data that only the device sees.

use super::abi;
use std::fmt;

/// The bits that kernels raised since the last look. Bad data is masked, never followed; see each operation's
/// docs for what it does instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Status(u32);

macro_rules! bits {
    ($($(#[$doc:meta])* $method:ident = $bit:ident, $text:literal;)+) => {
        impl Status {
            $($(#[$doc])*
            pub const fn $method(self) -> bool {
                self.0 & abi::$bit != 0
            })+

            const TEXTS: &[(u32, &str)] = &[$((abi::$bit, $text)),+];
        }
    };
}

bits! {
    /// An expert id was outside -1..E.
    bad_expert = NG_STATUS_BAD_EXPERT, "expert id out of range";
    /// A page id in use was outside the cache.
    bad_page = NG_STATUS_BAD_PAGE, "page id out of range";
    /// A sequence length was negative or beyond its page table.
    bad_length = NG_STATUS_BAD_LENGTH, "sequence length out of range";
    /// A token id was outside the vocabulary.
    bad_token = NG_STATUS_BAD_TOKEN, "token id out of range";
    /// A position was outside the rotary tables.
    bad_position = NG_STATUS_BAD_POSITION, "position out of range";
    /// A cache slot was outside the cache.
    bad_slot = NG_STATUS_BAD_SLOT, "cache slot out of range";
    /// Group offsets decreased or left the rows.
    bad_offsets = NG_STATUS_BAD_OFFSETS, "group offsets out of order";
    /// NaN was among scores that were ranked.
    nan_score = NG_STATUS_NAN_SCORE, "NaN score";
    /// A token was taken by no expert.
    unrouted = NG_STATUS_UNROUTED, "unrouted token";
    /// An index named a row that a matrix does not have.
    bad_row = NG_STATUS_BAD_ROW, "row index out of range";
}

impl Status {
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The raw bits, as `kernels/abi.h` names them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether nothing was wrong.
    pub const fn is_clear(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clear() {
            return f.write_str("clear");
        }
        let texts: Vec<_> =
            Self::TEXTS.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, text)| *text).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names() {
        assert_eq!(Status::default().to_string(), "clear");
        let status = Status::from_bits(abi::NG_STATUS_BAD_PAGE | abi::NG_STATUS_BAD_TOKEN);
        assert!(status.bad_page() && status.bad_token() && !status.bad_expert());
        assert_eq!(status.to_string(), "page id out of range, token id out of range");
    }
}
