//! The kernel command line, as far as it concerns `/init`.
//!
//! Pure parsing; a word that makes no sense is complained about and never stops the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clawgress_initramfs::modules::module_name;

const DEFAULT_WAIT: u64 = 30;
const LONGEST_WAIT: u64 = 3600;

/// When a person wants a shell in the initramfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rescue {
    #[default]
    Never,
    /// `clawgress.rescue`
    OnFailure,
    /// `clawgress.rescue=switch`: also before control passes to the real root.
    BeforeSwitch,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// How long to wait for the medium.
    pub(crate) wait: Duration,
    pub(crate) reboot_on_failure: bool,
    pub(crate) rescue: Rescue,
    /// `module.parameter=value`, collected per module in the kernel's spelling.
    pub(crate) parameters: BTreeMap<String, String>,
    /// `modprobe.blacklist=`
    pub(crate) blacklist: BTreeSet<String>,
    /// What could not be understood, in full sentences.
    pub(crate) complaints: Vec<String>,
}

impl Default for CommandLine {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(DEFAULT_WAIT),
            reboot_on_failure: false,
            rescue: Rescue::Never,
            parameters: BTreeMap::new(),
            blacklist: BTreeSet::new(),
            complaints: Vec::new(),
        }
    }
}

/// Reads the content of `/proc/cmdline`.
pub(crate) fn parse(text: &str) -> CommandLine {
    let mut line = CommandLine::default();
    for word in words(text) {
        // Everything after a bare `--` belongs to the real init.
        if word == "--" {
            break;
        }
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.as_str(), None),
        };
        match (key, value) {
            ("clawgress.wait", value) => match value.and_then(|value| value.parse().ok()) {
                Some(seconds) if seconds <= LONGEST_WAIT => {
                    line.wait = Duration::from_secs(seconds);
                }
                _ => line.complaints.push(format!(
                    "{word}: not a number of seconds from 0 to {LONGEST_WAIT}; \
                     waiting {DEFAULT_WAIT} s"
                )),
            },
            ("clawgress.onfail", Some("reboot")) => line.reboot_on_failure = true,
            ("clawgress.onfail", _) => line.complaints.push(format!(
                "{word}: the only choice is clawgress.onfail=reboot; a failure will stop the boot"
            )),
            ("clawgress.rescue", None) => line.rescue = Rescue::OnFailure,
            ("clawgress.rescue", Some("switch")) => line.rescue = Rescue::BeforeSwitch,
            ("clawgress.rescue", Some(_)) => line.complaints.push(format!(
                "{word}: write clawgress.rescue (a shell upon failure) or \
                 clawgress.rescue=switch (also before the root is entered); no shell will start"
            )),
            ("modprobe.blacklist", Some(list)) => {
                line.blacklist.extend(list.split(',').map(module_name));
            }
            _ => {
                if let Some((module, parameter)) = word.split_once('.')
                    && module != "clawgress"
                    && !module.contains('=')
                {
                    let parameters = line.parameters.entry(module_name(module)).or_default();
                    if !parameters.is_empty() {
                        parameters.push(' ');
                    }
                    parameters.push_str(parameter);
                }
            }
        }
    }
    line
}

/// Splits at white space outside double quotes; the quotes themselves fall away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(
            parse("BOOT_IMAGE=/clawgress/vmlinuz quiet console=ttyS0\n"),
            CommandLine::default()
        );
    }

    #[test]
    fn all_own_words() {
        let line = parse("clawgress.wait=5 clawgress.onfail=reboot clawgress.rescue");
        assert_eq!(line.wait, Duration::from_secs(5));
        assert!(line.reboot_on_failure);
        assert_eq!(line.rescue, Rescue::OnFailure);
        assert_eq!(
            parse("clawgress.rescue=switch").rescue,
            Rescue::BeforeSwitch
        );
        assert!(line.complaints.is_empty());
    }

    #[test]
    fn nonsense_is_complained_about_and_changes_nothing() {
        for word in [
            "clawgress.wait",
            "clawgress.wait=",
            "clawgress.wait=-1",
            "clawgress.wait=99999999999999999999",
            "clawgress.wait=3601",
            "clawgress.onfail=panic",
            "clawgress.onfail",
            "clawgress.rescue=yes",
        ] {
            let mut line = parse(word);
            assert_eq!(line.complaints.len(), 1, "{word}");
            assert!(line.complaints[0].starts_with(word));
            line.complaints.clear();
            assert_eq!(line, CommandLine::default(), "{word}");
        }
    }

    #[test]
    fn module_parameters_and_blacklist() {
        let line = parse(
            "usb-storage.delay_use=0 usb_storage.quirks=\"1:2:i 3\" modprobe.blacklist=ata-piix,nvme \
             root=/dev/x.y net.ifnames=0 -- init.later=1",
        );
        assert_eq!(
            line.parameters["usb_storage"], "delay_use=0 quirks=1:2:i 3",
            "kernel spelling, in order"
        );
        assert!(line.blacklist.contains("ata_piix") && line.blacklist.contains("nvme"));
        assert!(
            !line.parameters.contains_key("init"),
            "after -- nothing is ours"
        );
        assert!(!line.parameters.contains_key("root=/dev/x"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            parse(&text);
        }
    }
}
