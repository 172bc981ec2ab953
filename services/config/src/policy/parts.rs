//! The single values of a policy, each read and refused alike whichever text it stood in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::cidr::{Cidr, Wrong};
use crate::policy::model::{Day, TimeOfDay, TimeWindow};
use crate::policy::name::canonical_name;
pub(crate) use crate::policy::name::shown;
use crate::policy::words::DAYS;

/// As large as a counter of the kernel can be trusted with.
pub(crate) const MAX_CAP_BYTES: u64 = 1 << 60;
/// 1 Tbit/s: more than any card has.
pub(crate) const MAX_KBPS: u32 = 1_000_000_000;
/// Longest label: what fits into an answer of DNS beside the reason, and on a line of a log.
pub(crate) const MAX_LABEL: usize = 128;
const MAX_HOST: usize = 63;
const MAX_FILE: usize = 255;
const MINUTES_OF_DAY: u16 = 24 * 60;

impl TimeOfDay {
    /// `HH:MM`, to `24:00`.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let two = |digits: &str| {
            (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
                .then(|| digits.parse::<u16>().ok())
                .flatten()
        };
        text.split_once(':')
            .and_then(|(hour, minute)| Some((two(hour)?, two(minute)?)))
            .filter(|(_, minute)| *minute < 60)
            .map(|(hour, minute)| hour * 60 + minute)
            .filter(|minutes| *minutes <= MINUTES_OF_DAY)
            .map(Self)
            .ok_or_else(|| {
                Wrong::new(
                    format!("`{}` is not a time of day", shown(text)),
                    "write hours and minutes in two digits each, 00:00 to 24:00",
                )
            })
    }
}

impl std::fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TimeWindow {
    /// A window of what was written, or why it would never open.
    pub(crate) fn of(days: BTreeSet<Day>, start: TimeOfDay, end: TimeOfDay) -> Result<Self, Wrong> {
        if days.is_empty() {
            return Err(Wrong::new(
                "the window has no day",
                format!("name its days: {}", DAYS.join(", ")),
            ));
        }
        if start.0 >= MINUTES_OF_DAY {
            return Err(Wrong::new(
                "the window starts at 24:00",
                "write 00:00 and the day after; 24:00 is an end only",
            ));
        }
        if start == end {
            return Err(Wrong::new(
                format!("the window has no length: it starts and ends at {start}"),
                "write two different times; a whole day is 00:00 to 24:00",
            ));
        }
        Ok(Self { days, start, end })
    }
}

/// The name of a host: it stands in logs, rules and file names.
pub(crate) fn host_name(text: &str) -> Result<(), Wrong> {
    let wrong = |what: String, right: &str| Err(Wrong::new(what, right));
    if text.is_empty() || text.len() > MAX_HOST {
        return wrong(
            format!("a host's name has {} characters", text.chars().count()),
            "write 1 to 63",
        );
    }
    let sound = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !sound {
        return wrong(
            format!("`{}` is not the name of a host", shown(text)),
            "write letters, digits, hyphens, underscores and dots, beginning with a letter or digit, such as agent-1",
        );
    }
    if text == "sni" {
        return wrong(
            "`sni` is a name that the appliance uses itself".to_owned(),
            "choose another name",
        );
    }
    Ok(())
}

pub(crate) fn label(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::new(
            "the label is empty",
            "write a word such as llm-provider, or leave the label out",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::new(
            "the label holds a control character",
            "write plain text on one line",
        ));
    }
    let length = text.chars().count();
    if length > MAX_LABEL {
        return Err(Wrong::new(
            format!("the label has {length} characters"),
            format!("write at most {MAX_LABEL}"),
        ));
    }
    Ok(())
}

/// A destination or source network of either family.
pub(crate) fn network(text: &str) -> Result<Cidr, Wrong> {
    // What is far too long for an address would only fill the message.
    if text.len() > 64 {
        return Err(Wrong::new(
            format!("`{}` is not a network", shown(text)),
            "write one like 192.0.2.0/24 or 2001:db8::/32",
        ));
    }
    let cidr = Cidr::parse_network(text)?;
    match cidr.address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && cidr.length >= 96 => Err(Wrong::new(
            format!("`{}` is an IPv4 network in IPv6 clothing", shown(text)),
            format!(
                "write {}/{}",
                v6.to_ipv4_mapped()
                    .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
                cidr.length - 96
            ),
        )),
        _ => Ok(cidr),
    }
}

/// A network that packets can come from.
pub(crate) fn source(text: &str) -> Result<Cidr, Wrong> {
    let cidr = network(text)?;
    if cidr.length > 0 && (cidr.address.is_loopback() || cidr.address.is_multicast()) {
        return Err(Wrong::new(
            format!(
                "`{}` is no network that a host's packets come from",
                shown(text)
            ),
            "write the address of the host, such as 192.168.10.10/32",
        ));
    }
    Ok(cidr)
}

/// `name-or-address:port`, in its canonical form.
pub(crate) fn backend(text: &str) -> Result<String, Wrong> {
    let refused = || {
        Wrong::new(
            format!("`{}` is not a gateway with its port", shown(text)),
            "write one like gw.example.com:3128, 192.0.2.7:3128 or [2001:db8::7]:3128",
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let port = crate::value::port(port).map_err(|_| refused())?;
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: std::net::Ipv6Addr = inner.parse().map_err(|_| refused())?;
        crate::cidr::refuse_special(address.into())?;
        return Ok(format!("[{address}]:{port}"));
    }
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        crate::cidr::refuse_special(address.into())?;
        return Ok(format!("{address}:{port}"));
    }
    let name = canonical_name(host).map_err(|_| refused())?;
    Ok(format!("{name}:{port}"))
}

/// A file below /config.
pub(crate) fn file(text: &str) -> Result<(), Wrong> {
    let below = text.strip_prefix("/config/").unwrap_or_default();
    let sound = !below.is_empty()
        && text.len() <= MAX_FILE
        && below
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
        && below
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'));
    if sound {
        return Ok(());
    }
    Err(Wrong::new(
        format!("`{}` is not a file below /config", shown(text)),
        "write one like /config/keys/backend.pem, in letters, digits, dots, hyphens and underscores",
    ))
}

pub(crate) fn cap_bytes(number: u64) -> Result<u64, Wrong> {
    in_bounds(number, MAX_CAP_BYTES, "bytes", "remove the domain instead")
}

pub(crate) fn kbps(number: u64) -> Result<u32, Wrong> {
    let sound = in_bounds(
        number,
        MAX_KBPS.into(),
        "kbit/s",
        "leave the limit out for none",
    )?;
    Ok(u32::try_from(sound).unwrap_or(MAX_KBPS))
}

fn in_bounds(number: u64, most: u64, unit: &str, zero: &str) -> Result<u64, Wrong> {
    if number == 0 {
        return Err(Wrong::new(
            format!("0 {unit} would let nothing through"),
            format!("write at least 1; {zero}"),
        ));
    }
    if number > most {
        return Err(Wrong::new(
            format!("{number} {unit} is more than can be counted"),
            format!("write at most {most}"),
        ));
    }
    Ok(number)
}

/// A whole number as the console takes it: digits only.
pub(crate) fn whole(text: &str) -> Result<u64, Wrong> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or_else(|| {
        Wrong::new(
            format!("`{}` is not a whole number", shown(text)),
            "write it in digits, without sign, point or unit",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        assert_eq!(TimeOfDay::parse("09:30"), Ok(TimeOfDay(570)));
        assert_eq!(TimeOfDay::parse("24:00"), Ok(TimeOfDay(1440)));
        assert_eq!(TimeOfDay(570).to_string(), "09:30");
        for wrong in [
            "9:30",
            "09:60",
            "24:01",
            "25:00",
            "0930",
            "09:30:00",
            "",
            ":",
            "+9:30",
            "٠٩:٣٠",
        ] {
            assert!(TimeOfDay::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_open_sometime() {
        let mon = BTreeSet::from([Day::Mon]);
        let of = |start, end| TimeWindow::of(mon.clone(), TimeOfDay(start), TimeOfDay(end));
        assert!(of(0, 1440).is_ok() && of(1320, 360).is_ok());
        assert!(of(60, 60).unwrap_err().to_string().contains("no length"));
        assert!(of(1440, 60).unwrap_err().to_string().contains("00:00"));
        let none = TimeWindow::of(BTreeSet::new(), TimeOfDay(0), TimeOfDay(1));
        assert!(none.unwrap_err().to_string().contains("no day"));
    }

    #[test]
    fn hosts_files_backends_and_numbers() {
        assert!(host_name("agent-1").is_ok() && host_name("a.b_C").is_ok());
        for wrong in ["", "-a", "lan/eth1", "a b", "ü", "sni", &"x".repeat(64)] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
        assert!(file("/config/keys/a.pem").is_ok());
        for wrong in [
            "/etc/passwd",
            "/config/",
            "/config/../etc/x",
            "/config//x",
            "/config/a b",
            "a.pem",
        ] {
            assert!(file(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            backend("GW.example.com:3128").unwrap(),
            "gw.example.com:3128"
        );
        assert_eq!(backend("[2001:DB8::7]:3128").unwrap(), "[2001:db8::7]:3128");
        assert_eq!(backend("192.0.2.7:1").unwrap(), "192.0.2.7:1");
        for wrong in [
            "gw",
            "gw:0",
            "gw:70000",
            "2001:db8::7:3128x",
            "http://gw:1",
            "127.0.0.1:80",
            ":80",
        ] {
            assert!(backend(wrong).is_err(), "{wrong}");
        }
        assert!(cap_bytes(0).is_err() && cap_bytes(u64::MAX).is_err() && kbps(0).is_err());
        assert_eq!(kbps(8000), Ok(8000));
        assert_eq!(whole("1048576"), Ok(1_048_576));
        for wrong in [
            "",
            "-1",
            "+1",
            "01",
            "1.5",
            "1e3",
            "NaN",
            "99999999999999999999",
        ] {
            assert!(whole(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_of_packets() {
        assert!(network("0.0.0.0/0").is_ok() && network("::/0").is_ok());
        assert!(
            network("1.2.3.4/24")
                .unwrap_err()
                .to_string()
                .contains("1.2.3.0/24")
        );
        assert!(
            network("::ffff:10.0.0.0/104")
                .unwrap_err()
                .to_string()
                .contains("write 10.0.0.0/8")
        );
        assert!(source("127.0.0.0/8").is_err() && source("224.0.0.0/4").is_err());
        assert!(source("0.0.0.0/0").is_ok());
    }
}
