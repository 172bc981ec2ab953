//! Keys of issuers that are fetched: when, how often at most, and what was last good, on disk as well.
//!
//! Never trusts what it could not read as a set of keys, and never gives up a good set for a server that is away. An
//! issuer whose URL or authorities change begins with nothing.

mod client;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use clawgress_config::access::{Access, Issuer, KeySource};
use clawgress_identity::token::KeySet;
use clawgress_link::durable;
use serde::{Deserialize, Serialize};

pub(super) use client::Client;

/// Between two fetches of one issuer, give or take a fifth: gateways that begin together do not ask together for ever.
const EVERY: Duration = Duration::from_secs(600);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// A token with an unknown key makes a set be fetched anew, and whoever sends such tokens can't have it fetched more
/// often than this: longer than a fetch may last, and twice as long after each that brought nothing new.
const AT_MOST_EVERY: Duration = Duration::from_secs(20);
const FILE: &str = "fetched-keys.json";
const LARGEST: u64 = 64 * 1024 * 1024;

/// What has to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) url: String,
    /// PEM; None: the system's authorities.
    pub(super) ca: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    source: Source,
    /// The JWK set as it came.
    keys: String,
}

#[derive(Debug)]
struct Course {
    source: Source,
    due: Instant,
    /// When it was last begun.
    asked: Option<Instant>,
    pause: Duration,
    /// From the last fetch to one because of an unknown key.
    gap: Duration,
    fault: Option<String>,
}

impl Course {
    fn new(source: Source, now: Instant) -> Self {
        Self {
            source,
            due: now,
            asked: None,
            pause: FIRST_RETRY,
            gap: AT_MOST_EVERY,
            fault: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Fetched {
    file: PathBuf,
    kept: BTreeMap<String, Kept>,
    courses: BTreeMap<String, Course>,
}

/// One fetch to be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) issuer: String,
    pub(super) source: Source,
}

impl Fetched {
    /// With what was last good before this process. What can't be read is fetched anew.
    pub(super) fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        let kept = durable::read(&file, LARGEST)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let bytes = bytes.unwrap_or_else(|| b"{}".to_vec());
                serde_json::from_slice(&bytes)
                    .map_err(|error| format!("{}: {error}", file.display()))
            });
        let kept = kept.unwrap_or_else(|why| {
            tracing::error!("{why}; keys of issuers are fetched anew");
            BTreeMap::new()
        });
        Self {
            file,
            kept,
            courses: BTreeMap::new(),
        }
    }

    /// Takes up what the configuration asks for now. `ca` reads the file of authorities that an issuer names.
    pub(super) fn want(
        &mut self,
        access: &Access,
        now: Instant,
        mut ca: impl FnMut(&str) -> Result<String, String>,
    ) {
        let mut courses = BTreeMap::new();
        for (name, issuer) in &access.issuers {
            let KeySource::Url(url) = &issuer.keys else {
                continue;
            };
            let before = self.courses.remove(name);
            let source = match pem_of(issuer, &mut ca) {
                Ok(ca) => Source {
                    url: url.clone(),
                    ca,
                },
                Err(why) => {
                    // The old authorities count until there are new ones that can be read.
                    let kept = || {
                        let kept = self.kept.get(name)?;
                        Some(Course::new(kept.source.clone(), now))
                    };
                    let old = before.or_else(kept);
                    if let Some(mut course) = old.filter(|course| course.source.url == *url) {
                        course.fault = Some(why);
                        courses.insert(name.clone(), course);
                    }
                    continue;
                }
            };
            let course = before
                .filter(|course| course.source == source)
                .unwrap_or_else(|| Course::new(source, now));
            courses.insert(name.clone(), course);
        }
        self.courses = courses;
        let before = self.kept.len();
        let courses = &self.courses;
        self.kept.retain(|name, kept| {
            let course = courses.get(name);
            course.is_some_and(|course| course.source == kept.source)
        });
        if self.kept.len() != before {
            self.write();
        }
    }

    /// The last good set of an issuer, or why there is none.
    pub(super) fn keys(&self, issuer: &str) -> Result<&str, String> {
        if let Some(kept) = self.kept.get(issuer) {
            return Ok(&kept.keys);
        }
        let course = self.courses.get(issuer);
        let fault = course.and_then(|course| course.fault.clone());
        Err(fault.unwrap_or_else(|| "its keys have not been fetched yet".to_owned()))
    }

    /// What does not work at the moment, for people.
    pub(super) fn faults(&self) -> Vec<String> {
        let of = |(name, course): (&String, &Course)| {
            let fault = course.fault.as_ref()?;
            let then = if self.kept.contains_key(name) {
                "the last good keys stay in force"
            } else {
                "whoever depends on it is denied"
            };
            Some(format!("the issuer {name}: {fault}; {then}"))
        };
        self.courses.iter().filter_map(of).collect()
    }

    /// Tokens named keys of these issuers that their sets do not have.
    pub(super) fn missed(&mut self, issuers: &BTreeSet<String>, now: Instant) {
        for name in issuers {
            if let Some(course) = self.courses.get_mut(name) {
                // A server that has trouble is not asked more often for it.
                let gap = match course.fault {
                    Some(_) => course.gap.max(course.pause),
                    None => course.gap,
                };
                let soonest = course.asked.map_or(now, |asked| asked + gap);
                course.due = course.due.min(soonest.max(now));
            }
        }
    }

    /// What is to be fetched now; it counts as begun.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        for (name, course) in &mut self.courses {
            if course.due > now {
                continue;
            }
            course.asked = Some(now);
            course.due = now + LONGEST_RETRY;
            orders.push(Order {
                issuer: name.clone(),
                source: course.source.clone(),
            });
        }
        orders
    }

    /// How a fetch ended. True: there are other keys now.
    pub(super) fn take(
        &mut self,
        order: &Order,
        answer: Result<String, String>,
        now: Instant,
    ) -> bool {
        let Some(course) = self.courses.get_mut(&order.issuer) else {
            return false;
        };
        // The configuration has changed meanwhile.
        if course.source != order.source {
            return false;
        }
        let read = answer.and_then(|text| {
            KeySet::of_jwks(&text).map_err(|why| format!("{}: {why}", order.source.url))?;
            Ok(text)
        });
        match read {
            Ok(keys) => {
                course.fault = None;
                course.pause = FIRST_RETRY;
                course.due = now + jittered(EVERY);
                let known = self.kept.get(&order.issuer);
                if known.is_some_and(|known| known.keys == keys) {
                    course.gap = (course.gap * 2).min(LONGEST_RETRY);
                    return false;
                }
                course.gap = AT_MOST_EVERY;
                let kept = Kept {
                    source: order.source.clone(),
                    keys,
                };
                self.kept.insert(order.issuer.clone(), kept);
                self.write();
                true
            }
            Err(why) => {
                if course.fault.as_ref() != Some(&why) {
                    tracing::error!("keys of the issuer {}: {why}", order.issuer);
                }
                course.fault = Some(why);
                course.due = now + jittered(course.pause);
                course.pause = (course.pause * 2).min(LONGEST_RETRY);
                false
            }
        }
    }

    /// In force already; a disk that is full costs a fetch after the next start.
    fn write(&self) {
        let text = serde_json::to_vec(&self.kept).unwrap_or_default();
        if let Err(error) = durable::replace(&self.file, &text) {
            tracing::error!("{error}; fetched keys are forgotten by a restart");
        }
    }
}

fn pem_of(
    issuer: &Issuer,
    ca: &mut impl FnMut(&str) -> Result<String, String>,
) -> Result<Option<String>, String> {
    issuer.key_ca.as_deref().map(ca).transpose()
}

/// Up to a fifth shorter or longer. Without random numbers it is as it is.
fn jittered(span: Duration) -> Duration {
    let mut byte = [128];
    let _ = rand::fill(&mut byte);
    span.mul_f64(0.8 + 0.4 * f64::from(byte[0]) / 255.0)
}
