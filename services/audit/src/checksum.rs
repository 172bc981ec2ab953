//! CRC-32C (Castagnoli), against accidents of a disk. It proves nothing against an intruder: that is the chain's work.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Eight bytes at a step: `TABLES[k][b]` is what byte `b` does to the sum when `k` bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut step = 1;
        while step < 8 {
            let before = tables[step - 1][byte];
            tables[step][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            step += 1;
        }
        byte += 1;
    }
    tables
}

/// Continues a sum; begin with 0.
pub fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    let mut sum = !sum;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(sum);
        let b = word.to_le_bytes();
        sum = TABLES[7][usize::from(b[0])]
            ^ TABLES[6][usize::from(b[1])]
            ^ TABLES[5][usize::from(b[2])]
            ^ TABLES[4][usize::from(b[3])]
            ^ TABLES[3][usize::from(b[4])]
            ^ TABLES[2][usize::from(b[5])]
            ^ TABLES[1][usize::from(b[6])]
            ^ TABLES[0][usize::from(b[7])];
    }
    for byte in rest {
        sum = sum >> 8 ^ TABLES[0][usize::from(sum.to_le_bytes()[0] ^ byte)];
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        let bytes: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(0, &bytes), 0x46dd_794e);
        assert_eq!(crc32c(crc32c(0, &bytes[..11]), &bytes[11..]), 0x46dd_794e);
    }
}
