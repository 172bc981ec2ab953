//! What health and status say of those who serve the gateway's agents.

use serde_json::Value;

use crate::world::Console;

#[test]
fn status_counts_the_gateway_once_a_revision_wants_it() {
    let quiet = Console::new();
    let status = quiet.json(&["status"]);
    let names = |list: &Value| -> Vec<String> {
        let checks = list.as_array().unwrap().iter();
        checks
            .map(|check| check["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&status["health"]["services"]),
        ["gateway", "identity", "quota", "audit"]
    );
    assert!(!names(&status["health"]["checks"]).contains(&"gateway".to_owned()));
    let (_, out, _) = quiet.run(&["status"]);
    assert!(
        out.contains("no committed revision enables the gateway"),
        "{out}"
    );

    let mut console = Console::with_everybody();
    let check = |console: &Console, name: &str| {
        let status = console.json(&["status"]);
        assert_eq!(status["health"]["services"], Value::Null);
        let checks = status["health"]["checks"].as_array().unwrap().iter();
        checks
            .clone()
            .find(|check| check["name"] == name)
            .unwrap()
            .clone()
    };
    console.eventually("the gateway judges by the revision", || {
        check(&console, "gateway")["ok"] == true
    });
    assert!(
        check(&console, "gateway")["detail"]
            .as_str()
            .unwrap()
            .contains("judges by revision 1")
    );
    for name in ["identity", "quota", "audit"] {
        assert_eq!(check(&console, name)["ok"], true, "{name}");
    }
    console.kill("gateway");
    console.eventually("a gateway that is gone is told", || {
        let gateway = check(&console, "gateway");
        gateway["ok"] == false
            && gateway["detail"]
                .as_str()
                .unwrap()
                .contains("clawgress-gateway")
    });
}
