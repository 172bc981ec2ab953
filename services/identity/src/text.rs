//! Bytes as text and back: base64 with exactly one spelling for each content.
//!
//! A second spelling of the same bytes would be a second name for one credential, so it is refused.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// As in tokens and keys: the alphabet of URLs, no padding, no stray bits.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// As in HTTP Basic: padded in full.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_has_one_spelling() {
        assert_eq!(from_base64url("AA").unwrap(), [0]);
        for other in ["AB", "AA==", "AA=", "A", "A A", "AA\n", "+/8A", "A\u{e9}"] {
            assert_eq!(from_base64url(other), None, "{other:?}");
        }
        assert_eq!(from_base64("AA==").unwrap(), [0]);
        for other in ["AA", "AB==", "AA=", "_-8A", "AA== "] {
            assert_eq!(from_base64(other), None, "{other:?}");
        }
    }
}
