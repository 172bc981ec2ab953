//! The vocabularies of agents, rules and quotas. Each has its words in one place.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::access::model::{
    Action, AuthType, Durability, FailMode, QuotaMode, RuleMode, Status, WhenFull,
};
use crate::cidr::Wrong;
use crate::nearest::nearest;
use crate::policy::parts::shown;

macro_rules! vocabulary {
    ($type:ident, $words:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        pub(crate) const $words: &[&str] = &[$($word),+];

        impl $type {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(unknown(text, $words, $what)),
                }
            }
        }

        /// In JSON the parts of a word are joined by underscores.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.word().replace('-', "_"))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = Cow::<str>::deserialize(deserializer)?;
                Self::parse(&word.replace('_', "-")).map_err(D::Error::custom)
            }
        }
    };
}

vocabulary!(
    AuthType,
    AUTH_TYPES,
    "a kind of credential",
    ApiKey = "api-key",
    Jwt = "jwt",
    Certificate = "certificate"
);
vocabulary!(
    Status,
    STATUSES,
    "a status",
    Active = "active",
    Disabled = "disabled"
);
vocabulary!(Action, ACTIONS, "an action", Allow = "allow", Deny = "deny");
vocabulary!(
    RuleMode,
    RULE_MODES,
    "a rule's mode",
    Enforce = "enforce",
    Report = "report"
);
vocabulary!(
    QuotaMode,
    QUOTA_MODES,
    "a quota's mode",
    HardStop = "hard-stop",
    SoftStop = "soft-stop",
    AlertOnly = "alert-only"
);
vocabulary!(
    FailMode,
    FAIL_MODES,
    "a fail mode",
    Closed = "closed",
    Open = "open"
);
vocabulary!(
    Durability,
    DURABILITIES,
    "a durability",
    Batch = "batch",
    Strict = "strict"
);
vocabulary!(
    WhenFull,
    WHEN_FULL,
    "what a full queue does",
    Refuse = "refuse",
    DropCounted = "drop-counted"
);

/// The words of a quota's fail mode: it stops, or it lets go on.
pub(crate) const QUOTA_FAIL_MODES: &[&str] = &["hard-fail", "soft-fail"];

impl FailMode {
    pub(crate) fn quota_word(self) -> &'static str {
        match self {
            Self::Closed => "hard-fail",
            Self::Open => "soft-fail",
        }
    }

    pub(crate) fn parse_quota(text: &str) -> Result<Self, Wrong> {
        match text {
            "hard-fail" => Ok(Self::Closed),
            "soft-fail" => Ok(Self::Open),
            _ => Err(unknown(text, QUOTA_FAIL_MODES, "a quota's fail mode")),
        }
    }
}

fn unknown(text: &str, words: &'static [&'static str], what: &str) -> Wrong {
    let fix = nearest(text, words.iter().copied()).map_or_else(
        || format!("write one of: {}", words.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    Wrong::new(format!("`{}` is not {what}", shown(text)), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back() {
        for mode in QuotaMode::ALL {
            assert_eq!(QuotaMode::parse(mode.word()), Ok(*mode));
        }
        for mode in FailMode::ALL {
            assert_eq!(FailMode::parse_quota(mode.quota_word()), Ok(*mode));
        }
        assert!(
            AuthType::parse("apikey")
                .unwrap_err()
                .right
                .contains("api-key")
        );
        assert!(
            Action::parse("permit")
                .unwrap_err()
                .right
                .contains("allow, deny")
        );
    }
}
