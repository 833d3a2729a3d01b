//! Label selectors.

use std::collections::BTreeSet;

use super::{
    choice::alternatives,
    metadata::{label_value, labels},
    names,
    nearest::nearest,
    reader::Field,
};
use crate::{
    model::{Requirement, Selector},
    yaml::{Value, quote},
};

pub(crate) const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

pub(super) fn read(field: &Field<'_>) -> Option<Selector> {
    let mut object = field.object()?;
    let mut requirements = Vec::new();
    if let Some(field) = object.get("matchLabels") {
        let one = |(key, value)| Requirement::In {
            key,
            values: BTreeSet::from([value]),
        };
        requirements.extend(labels(&field).into_iter().map(one));
    }
    for item in object.items("matchExpressions") {
        requirements.extend(requirement(&item));
    }
    // As a Service writes its selector.
    let is_bare = requirements.is_empty() && !object.has("matchLabels");
    object.deny_unknown_with(|entry| {
        let is_label = matches!(entry.value.value, Value::String(_)) && is_bare;
        is_label.then(|| "labels of a selector stand in `matchLabels`".to_owned())
    });
    Some(Selector { requirements })
}

fn requirement(field: &Field<'_>) -> Option<Requirement> {
    let mut object = field.object()?;
    let key = object.require("key");
    let operator = object.require("operator");
    let values = object.get("values");
    object.deny_unknown();

    let key = key.and_then(|field| {
        let key = field.string()?;
        field.warn_of_word(field.at(), key);
        if !names::LABEL_KEY.holds(key) {
            field.error("invalid-label", names::LABEL_KEY.message(key));
            return None;
        }
        Some(key.to_owned())
    });
    let listed: BTreeSet<String> = values
        .iter()
        .flat_map(|values| values.list().unwrap_or_default())
        .filter_map(|value| label_value(&value))
        .collect();
    let written = values
        .as_ref()
        .and_then(|field| Some(!field.list_is_empty()?));
    let operator_field = operator?;
    let operator = operator_field.string()?;
    let takes_values = matches!(operator, "In" | "NotIn");
    match (takes_values, written) {
        (true, None | Some(false)) if values.is_none() || written.is_some() => {
            let place = values.as_ref().unwrap_or(field);
            place.error(
                "selector-values",
                format!("operator `{operator}` needs `values`"),
            );
        }
        (false, Some(true)) if OPERATORS.contains(&operator) => {
            let place = values.as_ref().unwrap_or(field);
            place.error(
                "selector-values",
                format!("operator `{operator}` takes no `values`"),
            );
        }
        _ => {}
    }
    let key = key?;
    match operator {
        "In" => Some(Requirement::In {
            key,
            values: listed,
        }),
        "NotIn" => Some(Requirement::NotIn {
            key,
            values: listed,
        }),
        "Exists" => Some(Requirement::Exists { key }),
        "DoesNotExist" => Some(Requirement::DoesNotExist { key }),
        _ => {
            let message = format!(
                "unknown operator {}: expected {}",
                quote(operator),
                alternatives(&OPERATORS, "or")
            );
            operator_field.error_with_suggestion("unknown-operator", message, || {
                nearest(operator, &OPERATORS)
            });
            None
        }
    }
}
