//! The plan: every rule, zone and setting that a revision means at one moment. Pure: the same input gives the same
//! bytes, and nothing is opened, asked or run.
//!
//! Two tables. `clawgress` is made anew by every plan in one transaction and holds what is let through; it is `frame`
//! (who and where), `raw` (hygiene), `own` (the box itself), `forward` (the fast path and the stamp) and `principal` (one
//! chain per principal, found by the flow's original source). `clawgress_meter` outlives plans and holds what is used up.

pub mod carry;
mod forward;
mod frame;
mod host;
pub mod layout;
mod loopback;
mod meter;
pub mod name;
mod named;
mod own;
mod pins;
mod principal;
pub mod proxied;
mod raw;
mod regions;
mod rpz;
mod ruleset;
mod services;
mod shaping;
mod statement;
mod transaction;

use std::{collections::BTreeMap, sync::Arc};

use clawgress_config::access::Action;
use clawgress_policy::{Index, Moment, Principal, Reason, Revision};
use serde_json::{Map, Value};

pub use carry::{Blocked, CarriedPin, Carry, MeterObjects, Proxied};
pub use host::{HostNeeds, Route, Sysctl};
pub use named::NamedConf;
pub use pins::{Place, places};
pub use rpz::{Marker, Zone, Zones};
pub use ruleset::{Exchange, Ruleset, Touched};
pub use shaping::{CardShaping, Class, Leaf, Shaping};

use frame::{Frame, WIRE_PORTS};
use pins::Pins;

#[derive(Debug, Clone)]
pub struct Plan {
    pub revision: u64,
    pub generation: u32,
    pub zones: Arc<Zones>,
    pub named: NamedConf,
    pub shaping: Shaping,
    pub host: HostNeeds,
    /// When a window next opens or closes, in seconds since 1970.
    pub next_change: Option<i64>,
    /// For people.
    pub warnings: Vec<String>,
    /// What each counter and quota counts.
    pub counted: Vec<Counted>,
    /// The numbers of what the gateway's flows are counted as.
    pub proxied: BTreeMap<Proxied, u32>,
    main: Ruleset,
    meter: Ruleset,
    existing: MeterObjects,
}

/// One object of the kernel that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub table: &'static str,
    pub object: String,
    /// Empty: nobody that is known.
    pub principal: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Packets; starts at nothing with every plan, unless in the meter table.
    Denied(Reason),
    BytesOut,
    BytesIn,
    /// Packets: one a flow.
    Flows,
    /// A quota: bytes used of the cap on this pattern.
    Cap(String),
}

/// Compiles a revision, as it is at a moment, on top of what is carried over.
pub fn compile(
    revision: &Revision,
    index: &Index,
    moment: Moment,
    generation: u32,
    carry: &Carry,
) -> Plan {
    let zones = Arc::new(Zones::of(revision, index));
    compile_with(revision, index, moment, generation, carry, zones)
}

/// As `compile`, with the zones of an earlier plan of the same revision: they do not depend on the moment.
pub fn compile_with(
    revision: &Revision,
    index: &Index,
    moment: Moment,
    generation: u32,
    carry: &Carry,
    zones: Arc<Zones>,
) -> Plan {
    let frame = Frame::new(revision, index, moment, generation, carry);
    let pins = Pins::of(index, &carry.pins, moment);
    Plan {
        revision: revision.number,
        generation,
        named: named::compile(revision, &zones),
        shaping: Shaping::compile(&frame),
        host: HostNeeds::compile(&frame),
        next_change: index.next_change(moment),
        warnings: warnings(&frame, &zones),
        counted: counted(&frame),
        proxied: carry.proxied.clone(),
        main: main_table(&frame, &pins),
        meter: meter::compile(&frame, &pins),
        existing: carry.meter.clone(),
        zones,
    }
}

impl Plan {
    /// The one transaction for `nft -j -f -` that puts this plan into force, whatever was before.
    pub fn transaction(&self) -> String {
        document([self.main.anew(), self.meter.kept(&self.existing)].concat())
    }

    /// The same from a plan that is in force: exchanges rules and living sets, and keeps the counters, where that is
    /// all that differs. `touched` are the living sets that were told anything since.
    pub fn transaction_after(&self, before: &Self, touched: &Touched) -> String {
        let meter = self.meter.after(&before.meter, touched);
        let meter = meter.unwrap_or_else(|| self.meter.kept(&self.existing));
        let main = self.main.after(&before.main, touched);
        document([main.unwrap_or_else(|| self.main.anew()), meter].concat())
    }

    /// The same where the content of sets is all that differs: what to exchange, in one step.
    pub fn exchange_after(&self, before: &Self, touched: &Touched) -> Option<Vec<Exchange>> {
        let mut all = self.main.exchange_after(&before.main, touched)?;
        all.extend(self.meter.exchange_after(&before.meter, touched)?);
        Some(all)
    }

    /// Whether `transaction_after` leaves the main table's counters as they are.
    pub fn keeps_counters(&self, before: &Self) -> bool {
        self.main.same_frame(&before.main)
    }

    /// Whether it differs from a plan that is in force in no rule: in what is pinned at most.
    pub fn says_the_same(&self, before: &Self) -> bool {
        self.main.says_the_same(&before.main) && self.meter.says_the_same(&before.meter)
    }

    /// What the meter table holds once this plan is in force.
    pub fn meter_objects(&self) -> MeterObjects {
        self.meter.objects()
    }
}

fn document(commands: Vec<Value>) -> String {
    Value::Object(Map::from_iter([("nftables".to_owned(), commands.into())])).to_string()
}

fn main_table(frame: &Frame<'_>, pins: &Pins) -> Ruleset {
    let mut ruleset = Ruleset::new(layout::TABLE);
    ruleset.mark(layout::GENERATION, frame.generation);
    ruleset.mark(layout::STAMPED, frame.stamp());
    ruleset.mark_to_give(layout::STAMPS, frame.stamp());
    forward::endings(&mut ruleset);
    for who in frame.index.principals() {
        principal::add(&mut ruleset, frame, pins, who);
    }
    forward::judges(&mut ruleset, frame);
    raw::add(&mut ruleset, frame);
    own::input(&mut ruleset, frame);
    forward::add(&mut ruleset, frame);
    own::output(&mut ruleset, frame);
    ruleset
}

fn counted(frame: &Frame<'_>) -> Vec<Counted> {
    let mut all = Vec::new();
    let mut push = |table, object, principal: &str, what| {
        all.push(Counted {
            table,
            object,
            principal: principal.to_owned(),
            what,
        });
    };
    for who in frame.index.principals() {
        for reason in principal::reasons(frame, who) {
            push(
                layout::TABLE,
                name::deny_counter(&who.name, reason),
                &who.name,
                What::Denied(reason),
            );
        }
        for (kind, what) in [
            ("out", What::BytesOut),
            ("in", What::BytesIn),
            ("flows", What::Flows),
        ] {
            push(layout::METER, name::meter(kind, &who.name), &who.name, what);
        }
        let own_caps = frame.index.holder(who).id == who.id;
        for (pattern, _) in frame.index.caps(who).iter().filter(|_| own_caps) {
            let what = What::Cap(pattern.as_str().to_owned());
            push(
                layout::METER,
                name::cap(&who.name, pattern.as_str()),
                &who.name,
                what,
            );
        }
        if !frame.index.caps(who).is_empty() {
            push(
                layout::METER,
                name::meter("over", &who.name),
                &who.name,
                What::Denied(Reason::OverCap),
            );
        }
    }
    for (table, reason) in [
        (layout::TABLE, Reason::UnknownSource),
        (layout::TABLE, Reason::SpoofedSource),
        (layout::METER, Reason::SpoofedSource),
    ] {
        push(
            table,
            name::anonymous_counter(reason),
            "",
            What::Denied(reason),
        );
    }
    all
}

fn warnings(frame: &Frame<'_>, zones: &Zones) -> Vec<String> {
    let mut warnings = frame.index.warnings().to_vec();
    for name in &zones.too_long {
        warnings.push(format!(
            "{name} is too long for a policy zone: it is denied"
        ));
    }
    if frame.wan.len() > 1 && frame.index.egress_kbps().is_some() {
        warnings.push(
            "the limit over all hosts holds on each outside card alone, not on all together"
                .to_owned(),
        );
    }
    for (rule, effect) in unseen(frame) {
        warnings.push(format!(
            "rule {rule}: agents that do not come by the proxy show neither method nor path; to them it {effect}"
        ));
    }
    if let Some(who) = frame
        .index
        .principals()
        .iter()
        .find(|who| has_quota(frame, who))
    {
        warnings.push(format!(
            "{}: quotas bind what comes by the proxy; its other flows are not counted against them",
            who.name
        ));
    }
    for who in frame.index.principals() {
        let scope = &who.scope;
        if scope.judges_names_on_the_wire
            && !WIRE_PORTS
                .iter()
                .any(|(port, _)| frame::on_wire(who, *port))
        {
            warnings.push(format!(
                "{}: names are judged on the wire, but neither port 443 nor port 80 is allowed: nothing is judged",
                who.name
            ));
        }
        if let Some(ruled) = &who.ruled {
            regions::warn(frame, who, ruled, &mut warnings);
        }
        if scope.ports.iter().any(|rule| rule.port == 853) {
            warnings.push(format!(
                "{}: port 853 stays closed, it leads past the appliance's resolver",
                who.name
            ));
        }
    }
    warnings
}

/// Rules about method and path that are for somebody without a proxy, and what they come to there.
fn unseen<'f>(frame: &'f Frame<'_>) -> BTreeMap<&'f str, &'static str> {
    let ruled = (frame.index.principals().iter()).filter(|who| who.ruled.is_some());
    let meant = ruled.flat_map(|who| frame.index.rules().meant_for(who));
    let unseen = meant.filter(|rule| rule.by_request);
    let effect = |action| match action {
        Action::Allow => "allows nothing",
        Action::Deny => "denies its destinations as a whole",
    };
    unseen.map(|rule| (rule.id, effect(rule.action))).collect()
}

fn has_quota(frame: &Frame<'_>, who: &Principal) -> bool {
    let quotas = &frame.revision.access.quotas;
    quotas.agents.contains_key(&who.name)
        || who.agent.as_ref().is_some_and(|agent| {
            quotas.teams.contains_key(&agent.team_id)
                || quotas.projects.contains_key(&agent.project_id)
        })
}
