//! What a policy says beside its rules: in annotations of the kinds of Kubernetes, in fields of our
//! own kind.

use super::{
    choice::{DENIED, MODES},
    nearest::nearest,
    reader::{Field, Object},
};
use crate::{model::Terms, yaml::quote};

/// Annotations that are ours to judge.
const PREFIX: &str = "ringfence.io/";
const NAMES: [&str; 5] = ["mode", "denied", "reason", "approved-by", "owner"];

/// The longest text that goes with every flow record of a policy, in characters.
pub(crate) const MAX_TEXT: usize = 500;

pub(super) fn of_annotations(field: Option<&Field<'_>>) -> Terms {
    let mut terms = Terms::default();
    for (entry, value) in field.and_then(Field::pairs).unwrap_or_default() {
        let Some(name) = entry.key.strip_prefix(PREFIX) else {
            value.string();
            continue;
        };
        match name {
            "mode" => terms.mode = MODES.read(&value).unwrap_or_default(),
            "denied" => terms.denied = DENIED.read(&value).unwrap_or_default(),
            "reason" => terms.reason = text(&value),
            "approved-by" => terms.approved_by = text(&value),
            "owner" => terms.owner = text(&value),
            _ => {
                let message = format!("unknown annotation {}", quote(&entry.key));
                value.error_with_suggestion("unknown-annotation", message, || {
                    nearest(name, &NAMES).map(|near| format!("{PREFIX}{near}"))
                });
            }
        }
    }
    terms
}

pub(super) fn of_spec(spec: &mut Object<'_>) -> Terms {
    Terms {
        mode: spec
            .get("mode")
            .and_then(|field| MODES.read(&field))
            .unwrap_or_default(),
        denied: spec
            .get("denied")
            .and_then(|field| DENIED.read(&field))
            .unwrap_or_default(),
        reason: spec.get("reason").and_then(|field| text(&field)),
        approved_by: spec.get("approvedBy").and_then(|field| text(&field)),
        owner: spec.get("owner").and_then(|field| text(&field)),
        revision: None,
    }
}

/// Our own kind says the same in its `spec`; an annotation would be read by nobody.
pub(super) fn deny_annotations(field: Option<&Field<'_>>) {
    for (entry, value) in field.and_then(Field::pairs).unwrap_or_default() {
        if entry.key.starts_with(PREFIX) {
            value.error_with_hint(
                "unknown-annotation",
                format!("annotation {} has no meaning here", quote(&entry.key)),
                "write it as a field of `spec`",
            );
        }
    }
}

fn text(field: &Field<'_>) -> Option<String> {
    line(field, MAX_TEXT)
}

/// One line, because it is shown in one; `most` counts characters.
pub(super) fn line(field: &Field<'_>, most: usize) -> Option<String> {
    let text = field.string()?;
    let length = text.chars().count();
    if length == 0 || length > most || text.contains(char::is_control) {
        let found = if length == 0 {
            "nothing".to_owned()
        } else if length > most {
            format!("{length} characters")
        } else {
            "a control character".to_owned()
        };
        let message = format!(
            "{}: expected a line of 1 to {most} characters, found {found}",
            field.name()
        );
        field.error("invalid-text", message);
        return None;
    }
    Some(text.to_owned())
}
