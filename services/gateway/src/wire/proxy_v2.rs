//! The PROXY protocol's binary header (version 2), in which the front door says whose connection it hands over.
//!
//! Read on the private socket alone: on any other an agent could say that it is somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub const FIXED: usize = 16;
/// Addresses and what front doors add to them.
const LONGEST: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection does not begin with a PROXY header of version 2")]
    Signature,
    #[error("the PROXY header's command, family or length is not known")]
    Kind,
    #[error("the PROXY header names no address")]
    NoAddress,
}

/// How many bytes follow the fixed part.
pub fn length(fixed: &[u8; FIXED]) -> Result<usize, ProxyError> {
    if !fixed.starts_with(&SIGNATURE) {
        return Err(ProxyError::Signature);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if fixed[12] >> 4 != 2 || length > LONGEST {
        return Err(ProxyError::Kind);
    }
    Ok(length)
}

/// Whose connection it is. A front door that asks for itself (LOCAL) has no business with a proxy.
pub fn source(fixed: &[u8; FIXED], rest: &[u8]) -> Result<SocketAddr, ProxyError> {
    if fixed[12] & 0x0f != 1 {
        return Err(ProxyError::NoAddress);
    }
    match fixed[13] {
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] =
                rest.first_chunk::<12>().ok_or(ProxyError::NoAddress)?;
            let address = IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d));
            Ok(SocketAddr::new(address, u16::from_be_bytes([*high, *low])))
        }
        0x21 => {
            let parts = rest.first_chunk::<36>().ok_or(ProxyError::NoAddress)?;
            let address = parts.first_chunk::<16>().ok_or(ProxyError::NoAddress)?;
            Ok(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::from(*address)),
                u16::from_be_bytes([parts[32], parts[33]]),
            ))
        }
        0 => Err(ProxyError::NoAddress),
        _ => Err(ProxyError::Kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Result<SocketAddr, ProxyError> {
        let mut fixed = [0; FIXED];
        fixed[..12].copy_from_slice(&SIGNATURE);
        fixed[12] = command;
        fixed[13] = family;
        fixed[14..].copy_from_slice(&(rest.len() as u16).to_be_bytes());
        assert_eq!(length(&fixed)?, rest.len());
        source(&fixed, rest)
    }

    #[test]
    fn the_source_is_read_and_anything_doubtful_refused() {
        let four = [192, 0, 2, 7, 203, 0, 113, 9, 0x30, 0x39, 0x01, 0xbb];
        assert_eq!(
            header(0x21, 0x11, &four).unwrap().to_string(),
            "192.0.2.7:12345"
        );
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[33] = 80;
        assert_eq!(header(0x21, 0x21, &six).unwrap().to_string(), "[2001::]:80");
        assert_eq!(header(0x20, 0x11, &four), Err(ProxyError::NoAddress));
        assert_eq!(header(0x21, 0, &[]), Err(ProxyError::NoAddress));
        assert_eq!(header(0x21, 0x31, &six), Err(ProxyError::Kind));
        assert_eq!(header(0x11, 0x11, &four), Err(ProxyError::Kind));
        assert_eq!(header(0x21, 0x11, &four[..11]), Err(ProxyError::NoAddress));
        assert_eq!(length(b"CONNECT example."), Err(ProxyError::Signature));
    }
}
