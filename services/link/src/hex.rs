//! Short byte strings as lower-case hex: keys, digests and signatures in JSON.

pub fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Lower case alone, so that equal bytes have equal texts.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_in_one_spelling() {
        assert_eq!(encode(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(encode(&[0, 0xaf]), "00af");
        assert_eq!(decode("007fff").unwrap(), [0, 0x7f, 0xff]);
        for wrong in ["0", "0g", "FF", "é", " 0"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
