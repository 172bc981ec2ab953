//! Judges whether the kernel holds a Clawgress ruleset, and which generation of it.
//!
//! Believes only what `nft` lists from the kernel, never what somebody loaded or meant to load; and never changes it.

use std::{process::Stdio, time::Duration};

use nftables::{
    schema::{Chain, NfListObject},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod watch;

pub use watch::{Watch, generation};

const NFT: &str = "/usr/sbin/nft";
const TABLE: &str = "clawgress";
/// The named set whose only element is the generation.
const GENERATION: &str = "generation";
/// The generation of the sealed ruleset; committed revisions start above it.
pub const SEALED: u32 = 0;
/// `nft` answers in milliseconds; on an emulated machine under load in a second or two.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the kernel holds. `input`, `forward` and `output` are the policies of the base chains, or `missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    pub loaded: bool,
    pub generation: u32,
    pub input: String,
    pub forward: String,
    pub output: String,
    pub detail: String,
}

impl Ruleset {
    pub fn absent(detail: impl Into<String>) -> Self {
        let missing = || "missing".to_owned();
        Self {
            loaded: false,
            generation: SEALED,
            input: missing(),
            forward: missing(),
            output: missing(),
            detail: detail.into(),
        }
    }
}

/// Lists the table and judges it; what can't be listed counts as absent. Needs `CAP_NET_ADMIN`.
pub async fn measure() -> Ruleset {
    listed().await.unwrap_or_else(Ruleset::absent)
}

/// As `measure`, but what can't be listed is an error: nothing is known then. Lists no elements of sets: their number and
/// how often they change is up to agents, and `nft` begins anew whenever something has changed.
pub async fn listed() -> Result<Ruleset, String> {
    let listing = tokio::process::Command::new(NFT)
        .args(["-t", "-j", "list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(DEADLINE, listing).await {
        Err(_) => Err(format!(
            "{NFT} did not list table inet {TABLE} within {DEADLINE:?}"
        )),
        Ok(Err(error)) => Err(format!("running {NFT}: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(judge(
            &String::from_utf8_lossy(&output.stdout),
            generation().await?,
        )),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("without a word").trim();
            let why = format!("{NFT} cannot list table inet {TABLE}: {said}");
            // By its own word it is not there; anything else says nothing of it.
            if said.ends_with("No such file or directory") {
                Ok(Ruleset::absent(why))
            } else {
                Err(why)
            }
        }
    }
}

/// Judges the output of `nft -t -j list table inet clawgress` and what the set of the generation holds.
pub fn judge(nft_json: &str, generation: Option<u32>) -> Ruleset {
    let objects = match serde_json::from_str::<Listing>(nft_json) {
        Ok(listing) => listing.nftables,
        Err(error) => {
            return Ruleset::absent(format!("the listing of nft is not its JSON: {error}"));
        }
    };
    let Some(table) = objects
        .iter()
        .find_map(|object| object.get("table").filter(|table| is_ours(table, "name")))
    else {
        return Ruleset::absent(format!("table inet {TABLE} is not loaded"));
    };

    let mut faults = Vec::new();
    // A dormant table is listed whole and hooked in nowhere. nft 1.0.6 writes that flag under a wrong name, so any
    // flag counts: our table has none.
    if let Some(flags) = table.get("flags") {
        faults.push(format!(
            "the table has the flags {flags}: it may be dormant, its chains not hooked in"
        ));
    }
    let mut policy_of = |name, hook| match base_chain(&objects, name, hook) {
        Ok(policy) => policy_word(policy, name, &mut faults),
        Err(fault) => {
            faults.push(fault);
            "missing".to_owned()
        }
    };
    let input = policy_of("input", NfHook::Input);
    let forward = policy_of("forward", NfHook::Forward);
    let output = policy_of("output", NfHook::Output);

    let known = generation.filter(|_| has_generation(&objects));
    if known.is_none() {
        faults.push(format!(
            "set {GENERATION} is missing or holds no one number: this is no ruleset of Clawgress"
        ));
    }
    if known == Some(SEALED) {
        faults.extend(opening_in_sealed_forward(&objects));
        faults.extend(missing_first_wall(&objects));
    }
    let generation = known.unwrap_or(SEALED);

    let loaded = faults.is_empty();
    let detail = match (loaded, generation) {
        (true, SEALED) => "sealed: nothing is forwarded".to_owned(),
        (true, generation) => format!("generation {generation}"),
        (false, _) => faults.join("; "),
    };
    Ruleset {
        loaded,
        generation,
        input,
        forward,
        output,
        detail,
    }
}

/// The document as a whole. Objects stay raw until one of them is of interest: rules may hold statements that the
/// typed crate does not know, and one such rule must not make the rest unreadable.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

fn is_ours(object: &Value, key: &str) -> bool {
    object.get("family").and_then(Value::as_str) == Some("inet")
        && object.get(key).and_then(Value::as_str) == Some(TABLE)
}

/// Every object of the wanted kind that the typed crate can read.
fn typed(objects: &[Value]) -> impl Iterator<Item = NfListObject<'static>> {
    objects
        .iter()
        .filter(|object| object.get("chain").is_some() || object.get("set").is_some())
        .filter_map(|object| serde_json::from_value(object.clone()).ok())
}

/// The policy of the named base chain, if it is hooked in where it has to be.
fn base_chain(objects: &[Value], name: &str, hook: NfHook) -> Result<NfChainPolicy, String> {
    let chain = typed(objects)
        .find_map(|object| match object {
            NfListObject::Chain(chain) if in_our_table(&chain) && chain.name == name => Some(chain),
            _ => None,
        })
        .ok_or_else(|| format!("chain {name} is missing"))?;
    if chain._type != Some(NfChainType::Filter) || chain.hook != Some(hook) {
        return Err(format!("chain {name} is not a filter chain on hook {name}"));
    }
    chain
        .policy
        .ok_or_else(|| format!("chain {name} has no policy"))
}

fn in_our_table(chain: &Chain<'_>) -> bool {
    matches!(chain.family, NfFamily::INet) && chain.table == TABLE
}

fn policy_word(policy: NfChainPolicy, name: &str, faults: &mut Vec<String>) -> String {
    match policy {
        NfChainPolicy::Drop => "drop".to_owned(),
        NfChainPolicy::Accept => {
            faults.push(format!("chain {name} accepts by default"));
            "accept".to_owned()
        }
    }
}

/// The set that every ruleset of ours carries.
fn has_generation(objects: &[Value]) -> bool {
    typed(objects).any(|object| match object {
        NfListObject::Set(set) => set.table == TABLE && set.name == GENERATION,
        _ => false,
    })
}

/// A sealed forward chain may count and drop. Whatever else stands in it could let a packet through.
fn opening_in_sealed_forward(objects: &[Value]) -> Option<String> {
    let harmless = ["counter", "drop"];
    objects
        .iter()
        .filter_map(|object| object.get("rule"))
        .filter(|rule| {
            is_ours(rule, "table") && rule.get("chain").and_then(Value::as_str) == Some("forward")
        })
        .filter_map(|rule| rule.get("expr").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(serde_json::Map::keys)
        .find(|statement| !harmless.contains(&statement.as_str()))
        .map(|statement| {
            format!(
                "generation {SEALED} is sealed, but its forward chain holds a {statement} statement"
            )
        })
}

/// The sealed ruleset's first wall: a filter chain on prerouting whose last word is drop.
fn missing_first_wall(objects: &[Value]) -> Option<String> {
    let hooked = typed(objects).any(|object| match object {
        NfListObject::Chain(chain) => {
            in_our_table(&chain)
                && chain.name == FIRST_WALL
                && chain._type == Some(NfChainType::Filter)
                && chain.hook == Some(NfHook::Prerouting)
        }
        _ => false,
    });
    if !hooked {
        return Some(format!(
            "generation {SEALED} is sealed, but its chain {FIRST_WALL} is missing"
        ));
    }
    let drops = objects
        .iter()
        .filter_map(|object| object.get("rule"))
        .rfind(|rule| {
            is_ours(rule, "table") && rule.get("chain").and_then(Value::as_str) == Some(FIRST_WALL)
        })
        .and_then(|rule| rule.get("expr")?.as_array()?.last())
        .is_some_and(|statement| statement.get("drop").is_some());
    (!drops).then(|| {
        format!("generation {SEALED} is sealed, but its chain {FIRST_WALL} does not end in a drop")
    })
}

const FIRST_WALL: &str = "prerouting";

#[cfg(test)]
mod tests {
    use super::*;

    const NFT_1_0_6: &str = include_str!("../../testdata/sealed-nft-1.0.6.json");
    const NFT_1_1_3: &str = include_str!("../../testdata/sealed-nft-1.1.3.json");

    /// The newer listing with one change made to its objects.
    fn altered(change: impl FnOnce(&mut Vec<Value>)) -> Ruleset {
        let mut listing: Value = serde_json::from_str(NFT_1_1_3).unwrap();
        change(listing["nftables"].as_array_mut().unwrap());
        judge(&listing.to_string(), Some(SEALED))
    }

    fn chain<'a>(objects: &'a mut [Value], name: &str) -> &'a mut Value {
        objects
            .iter_mut()
            .filter_map(|object| object.get_mut("chain"))
            .find(|chain| chain["name"] == name)
            .unwrap()
    }

    #[test]
    fn the_sealed_ruleset_is_recognised_from_both_versions_of_nft() {
        for listing in [NFT_1_0_6, NFT_1_1_3] {
            let ruleset = judge(listing, Some(SEALED));
            assert!(ruleset.loaded, "{}", ruleset.detail);
            assert_eq!(ruleset.generation, SEALED);
            assert_eq!(
                [&ruleset.input, &ruleset.forward, &ruleset.output],
                ["drop", "drop", "drop"]
            );
        }
    }

    #[test]
    fn nothing_and_nonsense_are_not_loaded() {
        for listing in ["", "{}", r#"{"nftables":[]}"#, "table inet clawgress {"] {
            let ruleset = judge(listing, Some(SEALED));
            assert!(
                !ruleset.loaded && ruleset.forward == "missing" && !ruleset.detail.is_empty(),
                "{listing}"
            );
        }
    }

    #[test]
    fn each_base_chain_has_to_be_there_hooked_in_and_dropping() {
        for name in ["input", "forward", "output"] {
            let gone = altered(|objects| objects.retain(|object| object["chain"]["name"] != name));
            assert!(
                !gone.loaded && gone.detail.contains(&format!("chain {name} is missing")),
                "{}",
                gone.detail
            );

            let open = altered(|objects| chain(objects, name)["policy"] = "accept".into());
            assert!(
                !open.loaded && open.detail.contains("accepts by default"),
                "{}",
                open.detail
            );

            let unhooked = altered(|objects| {
                let chain = chain(objects, name).as_object_mut().unwrap();
                for key in ["type", "hook", "prio", "policy"] {
                    chain.remove(key);
                }
            });
            assert!(
                !unhooked.loaded && unhooked.detail.contains("not a filter chain"),
                "{}",
                unhooked.detail
            );
        }
    }

    #[test]
    fn a_dormant_table_enforces_nothing() {
        // As nft 1.1.3 writes the flag, as several flags, and as nft 1.0.6 writes it by mistake.
        for flags in [
            Value::from("dormant"),
            Value::from(vec!["dormant", "owner"]),
            Value::from("inet"),
        ] {
            let dormant = altered(|objects| {
                let table = objects
                    .iter_mut()
                    .find_map(|object| object.get_mut("table"));
                table.unwrap()["flags"] = flags.clone();
            });
            assert!(
                !dormant.loaded && dormant.detail.contains("dormant"),
                "{}",
                dormant.detail
            );
        }
    }

    #[test]
    fn an_opening_in_the_sealed_forward_chain_is_seen() {
        let rule: Value = serde_json::json!({"rule": {"family": "inet", "table": "clawgress", "chain": "forward",
            "handle": 99, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}});
        let opened = altered(|objects| objects.push(rule.clone()));
        assert!(
            !opened.loaded && opened.detail.contains("accept"),
            "{}",
            opened.detail
        );
    }

    #[test]
    fn the_generation_is_what_the_kernel_says_and_has_to_be_there() {
        assert_eq!(judge(NFT_1_1_3, Some(4711)).generation, 4711);
        assert!(!judge(NFT_1_1_3, None).loaded);
        let nameless = altered(|objects| objects.retain(|object| object.get("set").is_none()));
        assert!(
            !nameless.loaded && nameless.detail.contains("no ruleset of Clawgress"),
            "{}",
            nameless.detail
        );
    }

    #[test]
    fn a_statement_unknown_to_the_typed_crate_does_not_hide_the_rest() {
        let rule: Value = serde_json::json!({"rule": {"family": "inet", "table": "clawgress", "chain": "input",
            "handle": 99, "expr": [{"statement of the future": {"x": 1}}]}});
        assert!(altered(|objects| objects.push(rule)).loaded);
    }

    #[test]
    fn a_sealed_ruleset_has_both_walls() {
        let without = altered(|objects| chain(objects, "prerouting")["name"] = "other".into());
        assert!(
            !without.loaded && without.detail.contains("prerouting"),
            "{without:?}"
        );
        let open = altered(|objects| {
            let last = objects
                .iter_mut()
                .rev()
                .filter_map(|object| object.get_mut("rule"))
                .find(|rule| rule["chain"] == "prerouting")
                .unwrap();
            last["expr"] = serde_json::json!([{ "accept": null }]);
        });
        assert!(
            !open.loaded && open.detail.contains("does not end in a drop"),
            "{open:?}"
        );
    }
}
