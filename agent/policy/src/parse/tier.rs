//! What the two kinds of ranked policies have in common.

use super::{
    PortUse, form,
    reader::{Field, Object},
};
use crate::{
    model::{Direction, TierRule},
    yaml::Entry,
};

pub(crate) const MAX_PRIORITY: u16 = 1000;
/// Of the name of a rule, in characters.
pub(crate) const MAX_NAME: usize = 100;

/// The field that lists the peers of a rule.
pub(crate) fn side(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// What to write for the peers of a rule that stand under the name of the other direction.
pub(super) fn other_side(entry: &Entry, direction: Direction) -> Option<String> {
    let (own, other) = match direction {
        Direction::Ingress => ("from", "to"),
        Direction::Egress => ("to", "from"),
    };
    let hint = || format!("the peers of {direction} are in `{own}`");
    (&*entry.key == other).then(hint)
}

pub(super) fn priority(field: &Field<'_>) -> Option<u16> {
    form::number(field, "invalid-priority", "priority", (0, MAX_PRIORITY))
}

/// The rules of both directions, ingress first.
pub(super) fn both(
    [ingress, egress]: [Option<Field<'_>>; 2],
    most: usize,
    mut read: impl FnMut(&Field<'_>, Direction) -> Option<TierRule>,
) -> Option<[Vec<TierRule>; 2]> {
    let ingress = rules(ingress.as_ref(), most, |item| {
        read(item, Direction::Ingress)
    });
    let egress = rules(egress.as_ref(), most, |item| read(item, Direction::Egress));
    Some([ingress?, egress?])
}

fn rules(
    field: Option<&Field<'_>>,
    most: usize,
    read: impl FnMut(&Field<'_>) -> Option<TierRule>,
) -> Option<Vec<TierRule>> {
    let Some(field) = field else {
        return Some(Vec::new());
    };
    form::each(&form::at_most(field, most)?, read)
}

pub(super) fn warn_without_rules(object: &Field<'_>, ingress: &[TierRule], egress: &[TierRule]) {
    if ingress.is_empty() && egress.is_empty() {
        object.warn(
            "no-rules",
            format!("{} has no rule: the policy does nothing", object.name()),
            "add rules in `ingress` or `egress`",
        );
    }
}

pub(super) fn named_port(field: &Field<'_>, uses: &mut Vec<PortUse>) -> Option<String> {
    let name = super::names::PORT_NAME.read(field)?;
    uses.push(PortUse {
        at: field.at(),
        path: field.path(),
        name: name.clone(),
        protocol: None,
    });
    Some(name)
}

/// Whether an object says anything, be it unknown.
pub(super) fn says_nothing(object: &Object<'_>) -> bool {
    object.is_empty() || object.only_nulls()
}
