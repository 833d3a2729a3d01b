//! When a policy or a rule exists.

use serde_json::json;

use super::{Definition, reference};
use crate::{model::Schedule, parse::choice::DAYS};

const CLOCK: &str = "([01][0-9]|2[0-3]):[0-5][0-9]";

pub(super) fn definitions() -> [Definition; 3] {
    let when = json!({
        "description": "All parts must hold; outside of its time, it does not exist.",
        "type": "object",
        "properties": {
            "notBefore": reference("time"),
            "expires": reference("time"),
            "schedule": reference("schedule"),
        },
        "minProperties": 1,
        "additionalProperties": false,
    });
    let schedule = json!({
        "description": "Hours of days of every week.",
        "type": "object",
        "properties": {
            "timeZone": {
                "description": "A name of the IANA time zone database.",
                "enum": Schedule::time_zones(),
            },
            "windows": {
                "type": "array",
                "items": reference("window"),
                "minItems": 1,
                "maxItems": Schedule::MAX_WINDOWS,
            },
        },
        "required": ["timeZone", "windows"],
        "additionalProperties": false,
    });
    let window = json!({
        "type": "object",
        "properties": {
            "days": {
                "description": "The days on which it begins.",
                "type": "array",
                "items": {"enum": DAYS.words()},
                "minItems": 1,
                "uniqueItems": true,
            },
            "from": {
                "description": "HH:MM by the clock of the time zone.",
                "type": "string",
                "pattern": format!("^{CLOCK}$"),
            },
            "to": {
                "description": "HH:MM; where it is not after `from`, of the next day.",
                "type": "string",
                "pattern": format!("^({CLOCK}|24:00)$"),
            },
        },
        "required": ["days", "from", "to"],
        "additionalProperties": false,
    });
    [("when", when), ("schedule", schedule), ("window", window)]
}
