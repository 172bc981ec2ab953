//! Policy to words, in one canonical way.

use crate::policy::domain::DomainPattern;
use crate::policy::model::{Host, Policy, PortRule, Protocol, Scope, TimeWindow};
use crate::policy::tree::ROOT;
use crate::tree::Tree;

pub(super) fn write(tree: &mut Tree, policy: &Policy) {
    let mut writer = Writer {
        tree,
        path: ROOT.map(str::to_owned).into(),
    };
    writer.scope(&policy.global);
    for (name, label) in &policy.labels {
        if policy.global.allow.domains.contains(name) {
            writer.add(&["domain", name.as_str(), "label", label]);
        } else {
            writer.add(&["label", name.as_str(), "text", label]);
        }
    }
    for (name, host) in &policy.hosts {
        writer.below(&["host", name], |writer| writer.host(host));
    }
}

struct Writer<'t> {
    tree: &'t mut Tree,
    path: Vec<String>,
}

impl Writer<'_> {
    fn add(&mut self, words: &[&str]) {
        let path = self.path.iter().map(String::as_str);
        let path = path.chain(words.iter().copied());
        self.tree.insert(path.map(|word| (word, None)));
    }

    fn below(&mut self, words: &[&str], write: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.extend(words.iter().map(|&word| word.to_owned()));
        self.add(&[]);
        write(self);
        self.path.truncate(length);
    }

    fn host(&mut self, host: &Host) {
        for source in &host.sources {
            self.add(&["source", &source.to_string()]);
        }
        self.scope(&host.scope);
        for (name, cap) in &host.exfil {
            self.below(&["exfil", "domain", name.as_str()], |writer| {
                writer.add(&["bytes", &cap.bytes.to_string()]);
                writer.add(&["period", cap.period.word()]);
            });
        }
    }

    fn scope(&mut self, scope: &Scope) {
        let window_of = |name: &DomainPattern| scope.domain_time_windows.get(name);
        for name in &scope.allow.domains {
            self.domain(&["domain"], name, window_of(name));
        }
        for network in &scope.allow.ips {
            self.add(&["ip", &network.to_string()]);
        }
        for rule in &scope.allow.ports {
            let port = rule.port.to_string();
            let udp = PortRule {
                port: rule.port,
                protocol: Protocol::Udp,
            };
            // A port alone means TCP alone.
            if scope.allow.ports.contains(&udp) {
                self.add(&["port", &port, "protocol", rule.protocol.word()]);
            } else {
                self.add(&["port", &port]);
            }
        }
        if let Some(window) = &scope.time_window {
            self.window(window);
        }
        if let Some(kbps) = scope.limits.egress_kbps {
            self.add(&["rate-limit-kbps", &kbps.to_string()]);
        }
        let Some(proxy) = &scope.proxy else { return };
        self.below(&["proxy"], |writer| {
            if let Some(mode) = proxy.mode {
                writer.add(&["mode", mode.word()]);
            }
            for name in &proxy.domains {
                let own = !scope.allow.domains.contains(name);
                let window = window_of(name).filter(|_| own);
                writer.domain(&["domain"], name, window);
            }
            if let Some(backend) = &proxy.backend {
                writer.add(&["backend", backend]);
            }
            if let Some(mtls) = &proxy.mtls {
                writer.add(&["mtls", "ca", &mtls.ca]);
                writer.add(&["mtls", "certificate", &mtls.certificate]);
                writer.add(&["mtls", "key", &mtls.key]);
            }
        });
    }

    fn domain(&mut self, words: &[&str], name: &DomainPattern, window: Option<&TimeWindow>) {
        self.add(&[words, &[name.as_str()]].concat());
        if let Some(window) = window {
            self.below(&[words, &[name.as_str()]].concat(), |writer| {
                writer.window(window)
            });
        }
    }

    fn window(&mut self, window: &TimeWindow) {
        self.below(&["time-window"], |writer| {
            for day in &window.days {
                writer.add(&["day", day.word()]);
            }
            writer.add(&["start", &window.start.to_string()]);
            writer.add(&["end", &window.end.to_string()]);
        });
    }
}
