//! A hardware address and its text.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        formatter.write_str(&bytes.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut fields = text.split(':');
        for byte in &mut bytes {
            *byte = fields
                .next()
                .and_then(|field| u8::from_str_radix(field, 16).ok())
                .ok_or_else(|| {
                    format!("{text:?} is no hardware address such as 02:00:00:00:00:01")
                })?;
        }
        match fields.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(format!("{text:?} has more than six bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac: Mac = "52:54:00:c1:a0:ff".parse().expect("an address");
        assert_eq!(mac.to_string(), "52:54:00:c1:a0:ff");
        assert!("52:54:00:c1:a0".parse::<Mac>().is_err());
        assert!("52:54:00:c1:a0:00:00".parse::<Mac>().is_err());
    }
}
