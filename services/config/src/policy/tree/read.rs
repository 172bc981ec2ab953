//! Words to policy. Single values are judged by the table; here is found what contradicts itself or is incomplete.
//! Whatever is wrong is left out, so that the rest can be judged all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::cidr::{Cidr, Wrong};
use crate::parse::MAX_PROBLEMS;
use crate::policy::domain::DomainPattern;
use crate::policy::model::{
    Cap, Day, Host, Mtls, Period, Policy, PortRule, Protocol, Proxy, ProxyMode, Scope, TimeOfDay,
    TimeWindow,
};
use crate::policy::parts;
use crate::policy::tree::ROOT;
use crate::problem::Problem;
use crate::tree::{Node, Tree};

/// The policy that a tree holds, and why it is not a whole one.
pub(crate) fn read(tree: &Tree) -> (Policy, Vec<Problem>) {
    let mut reader = Reader::at(&ROOT);
    let Some(node) = tree.get(&ROOT) else {
        return (Policy::default(), Vec::new());
    };
    let mut policy = Policy {
        global: reader.scope(node),
        ..Policy::default()
    };
    reader.below("label", node, |reader, labels| {
        for (word, child) in labels.in_order() {
            reader.below_node(word, child, |reader, child| {
                if let Ok(name) = DomainPattern::parse(word)
                    && reader.complete(child, &["text"])
                {
                    reader.label(&name, child, "text");
                }
            });
        }
    });
    reader.below("host", node, |reader, hosts| {
        for (name, child) in hosts.in_order() {
            let host = reader.below_node(name, child, Reader::host);
            if parts::host_name(name).is_ok() {
                policy.hosts.insert(name.to_owned(), host);
            }
        }
    });
    let labels = std::mem::take(&mut reader.labels);
    policy.labels = labels
        .into_iter()
        .map(|(name, (label, _))| (name, label))
        .collect();
    (policy, reader.problems)
}

/// Reads what is below a path. The readers of other parts of the configuration use it, too.
pub(crate) struct Reader {
    path: Vec<String>,
    pub(crate) problems: Vec<Problem>,
    /// With the path that gave the label first.
    labels: BTreeMap<DomainPattern, (String, String)>,
}

/// The words below `word`, as they were written.
pub(crate) fn values<'n>(node: &'n Node, word: &str) -> Vec<(&'n str, &'n Node)> {
    node.get(word).map(Node::in_order).unwrap_or_default()
}

/// The first sound value of a leaf.
pub(crate) fn one<T>(
    node: &Node,
    word: &str,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    values(node, word)
        .into_iter()
        .find_map(|(value, _)| parse(value).ok())
}

pub(crate) fn text(
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> impl Fn(&str) -> Result<String, Wrong> {
    move |text| check(text).map(|()| text.to_owned())
}

impl Reader {
    pub(crate) fn at(path: &[&str]) -> Self {
        Self {
            path: path.iter().map(|&word| word.to_owned()).collect(),
            problems: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    pub(crate) fn report(&mut self, node: &Node, what: impl Into<String>, fix: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let words: Vec<&str> = self.path.iter().map(String::as_str).collect();
            self.problems
                .push(Problem::new(&words, node.position(), what, fix));
        }
    }

    pub(crate) fn below(&mut self, word: &str, node: &Node, each: impl FnOnce(&mut Self, &Node)) {
        if let Some(child) = node.get(word) {
            self.below_node(word, child, each);
        }
    }

    pub(crate) fn below_node<T>(
        &mut self,
        word: &str,
        child: &Node,
        each: impl FnOnce(&mut Self, &Node) -> T,
    ) -> T {
        self.path.push(word.to_owned());
        let value = each(self, child);
        self.path.pop();
        value
    }

    fn host(&mut self, node: &Node) -> Host {
        let mut host = Host {
            sources: self.networks(node, "source", parts::source),
            scope: self.scope(node),
            exfil: BTreeMap::new(),
        };
        self.below("exfil", node, |reader, node| {
            host.exfil = reader
                .domains(node, |reader, _, child| reader.cap(child))
                .into_iter()
                .filter_map(|(name, cap)| Some((name, cap?)))
                .collect();
        });
        host
    }

    fn scope(&mut self, node: &Node) -> Scope {
        let mut scope = Scope::default();
        let named = self.domains(node, |reader, name, child| {
            reader.label(name, child, "label");
            reader.window(child)
        });
        for (name, window) in named {
            if let Some(window) = window {
                scope.domain_time_windows.insert(name.clone(), window);
            }
            scope.allow.domains.insert(name);
        }
        scope.allow.ips = self.networks(node, "ip", parts::network);
        for (word, child) in values(node, "port") {
            let Ok(port) = crate::value::port(word) else {
                continue;
            };
            let by = values(child, "protocol");
            if by.is_empty() {
                let protocol = Protocol::Tcp;
                scope.allow.ports.insert(PortRule { port, protocol });
            }
            let by = by
                .into_iter()
                .filter_map(|(word, _)| Protocol::parse(word).ok());
            scope
                .allow
                .ports
                .extend(by.map(|protocol| PortRule { port, protocol }));
        }
        scope.time_window = self.window(node);
        scope.limits.egress_kbps = one(node, "rate-limit-kbps", |text| {
            parts::whole(text).and_then(parts::kbps)
        });
        self.below("proxy", node, |reader, node| {
            scope.proxy = Some(reader.proxy(node, &mut scope.domain_time_windows));
        });
        scope
    }

    fn proxy(&mut self, node: &Node, windows: &mut BTreeMap<DomainPattern, TimeWindow>) -> Proxy {
        let mut proxy = Proxy {
            mode: one(node, "mode", ProxyMode::parse),
            domains: BTreeSet::new(),
            backend: one(node, "backend", parts::backend),
            mtls: None,
        };
        for (name, window) in self.domains(node, |reader, _, child| reader.window(child)) {
            if let Some(window) = window {
                let known = windows
                    .entry(name.clone())
                    .or_insert_with(|| window.clone());
                if *known != window {
                    self.report(
                        node,
                        format!("{name} has another window as an allowed domain"),
                        "keep one of the two windows",
                    );
                }
            }
            proxy.domains.insert(name);
        }
        self.below("mtls", node, |reader, node| {
            let file = |word| one(node, word, text(parts::file));
            if reader.complete(node, &["ca", "certificate", "key"]) {
                proxy.mtls = file("ca").zip(file("certificate")).zip(file("key")).map(
                    |((ca, certificate), key)| Mtls {
                        ca,
                        certificate,
                        key,
                    },
                );
            }
        });
        proxy
    }

    /// Reports each of the words that is not there.
    pub(crate) fn complete(&mut self, node: &Node, words: &[&str]) -> bool {
        let mut whole = true;
        for word in words.iter().filter(|word| node.get(word).is_none()) {
            whole = false;
            let path = self.path.join(" ");
            self.report(
                node,
                format!("{word} is missing"),
                format!("add {path} {word}"),
            );
        }
        whole
    }

    pub(crate) fn window(&mut self, node: &Node) -> Option<TimeWindow> {
        let node = node.get("time-window")?;
        self.below_node("time-window", node, |reader, node| {
            if !reader.complete(node, &["day", "start", "end"]) {
                return None;
            }
            let mut days = BTreeSet::new();
            for (word, _) in values(node, "day") {
                days.insert(Day::parse(word).ok()?);
            }
            // Without a word behind `day` the table has complained already.
            if days.is_empty() {
                return None;
            }
            let start = one(node, "start", TimeOfDay::parse)?;
            let end = one(node, "end", TimeOfDay::parse)?;
            TimeWindow::of(days, start, end)
                .map_err(|wrong| reader.report(node, wrong.what, wrong.right))
                .ok()
        })
    }

    fn cap(&mut self, node: &Node) -> Option<Cap> {
        if !self.complete(node, &["bytes", "period"]) {
            return None;
        }
        let bytes = one(node, "bytes", |text| {
            parts::whole(text).and_then(parts::cap_bytes)
        })?;
        let period = one(node, "period", Period::parse)?;
        Some(Cap { bytes, period })
    }

    /// The domains below `domain`, each with what stands below it.
    pub(crate) fn domains<T>(
        &mut self,
        node: &Node,
        each: impl Fn(&mut Self, &DomainPattern, &Node) -> T,
    ) -> BTreeMap<DomainPattern, T> {
        let mut read = BTreeMap::new();
        self.below("domain", node, |reader, node| {
            for (word, child) in node.in_order() {
                let Ok(name) = DomainPattern::parse(word) else {
                    continue;
                };
                let value = reader.below_node(word, child, |reader, child| {
                    if read.contains_key(&name) {
                        reader.report(
                            child,
                            format!("the domain {name} is there twice, in two writings"),
                            "keep one of them",
                        );
                    }
                    each(reader, &name, child)
                });
                read.insert(name, value);
            }
        });
        read
    }

    pub(crate) fn networks(
        &mut self,
        node: &Node,
        word: &str,
        parse: fn(&str) -> Result<Cidr, Wrong>,
    ) -> BTreeSet<Cidr> {
        let mut read = BTreeSet::new();
        self.below(word, node, |reader, node| {
            for (word, child) in node.in_order() {
                let Ok(network) = parse(word) else { continue };
                if !read.insert(network) {
                    reader.below_node(word, child, |reader, child| {
                        reader.report(
                            child,
                            format!("the network {network} is there twice, in two writings"),
                            "keep one of them",
                        );
                    });
                }
            }
        });
        read
    }

    /// A label is for a domain wherever it is allowed: two that differ contradict each other.
    fn label(&mut self, name: &DomainPattern, node: &Node, word: &str) {
        let Some(label) = one(node, word, text(parts::label)) else {
            return;
        };
        match self.labels.get(name) {
            None => {
                let entry = (label, self.path.join(" "));
                self.labels.insert(name.clone(), entry);
            }
            Some((known, path)) if *known != label => {
                let what =
                    format!("the label is `{known}` at {path}: a domain has one label everywhere");
                self.report(node, what, "keep one of the two labels");
            }
            Some(_) => {}
        }
    }
}
