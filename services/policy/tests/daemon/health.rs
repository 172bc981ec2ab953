//! Whose state counts for whom: a box is not sealed for what serves the gateway alone, and nobody is told that it is well.

use serde_json::{Value, json};

use crate::service::{ENABLED, Service};

fn names(list: &Value) -> Vec<&str> {
    let checks = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = checks.iter().map(|check| check["name"].as_str().unwrap());
    names.collect()
}

const SERVICES: [&str; 4] = ["gateway", "identity", "quota", "audit"];

#[test]
fn who_seals_the_box_is_not_told_of_the_services_and_everybody_else_is() {
    let wanted = ENABLED.replace("policy {", "gateway { enable } policy {");
    let service = Service::new(&wanted).booted();
    // As appliance-init asks: it starts the services only once this says that the box enforces.
    let (_, health) = service.console("/clawgress/health", &json!({}));
    assert!(!names(&health["checks"]).contains(&"gateway"), "{health}");
    assert_eq!(names(&health["services"]), SERVICES);
    assert_eq!(health["services_wanted"], true);
    let (status, health) = service.front("/clawgress/health", &json!({}));
    assert_eq!(status, 503);
    assert!(names(&health["checks"]).ends_with(&SERVICES), "{health}");
    assert_eq!(
        (&health["services"], &health["enforcing"]),
        (&Value::Null, &json!(false))
    );
    let (_, overview) = service.console("/clawgress/console/overview", &json!({}));
    assert!(
        names(&overview["health"]["checks"]).ends_with(&SERVICES),
        "{overview}"
    );
}

#[test]
fn without_a_gateway_the_services_count_for_nobody() {
    let service = Service::new(ENABLED).booted();
    for health in [
        service.console("/clawgress/health", &json!({})).1,
        service.front("/clawgress/health", &json!({})).1,
        service.console("/clawgress/console/overview", &json!({})).1["health"].clone(),
    ] {
        assert!(!names(&health["checks"]).contains(&"gateway"), "{health}");
        assert_eq!(names(&health["services"]), SERVICES);
        assert_eq!(health["services_wanted"], Value::Null);
    }
}
