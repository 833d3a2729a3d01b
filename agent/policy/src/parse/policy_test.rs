//! `PolicyTest` of `ringfence.io/v1alpha1`: what is expected and asserted of the policies beside it.

use std::net::IpAddr;

use super::{
    Declared, Object as Parsed, address,
    choice::Choice,
    form,
    metadata::{self, Annotations, Form},
    names,
    reader::{Field, Object},
    ringfence_policy::subject,
    selector, terms, when,
};
use crate::{
    classes::{PortRange, PortSet},
    connection::{Port, Verdict},
    model::Peer,
    policy_test::{Expectation, PolicyTest},
    question::View,
    verify::{Assertion, Ends, EndsPart, Reach},
    yaml::{Value, is_digits, quote},
};

/// Of the name of an assertion, in characters.
pub(crate) const MAX_NAME: usize = 200;

/// Of an end, in characters: the longest, a Service, has 63 and 253 beside its prefix.
pub(crate) const MAX_END: usize = 350;

pub(crate) const VIEWS: Choice<View> = Choice::new(
    "view",
    "unknown-view",
    &[
        ("live", View::Live),
        ("audit", View::Audit),
        ("staged", View::Staged),
    ],
);

pub(crate) const VERDICTS: Choice<Verdict> = Choice::new(
    "verdict",
    "unknown-verdict",
    &[("allow", Verdict::Allow), ("deny", Verdict::Deny)],
);

pub(crate) const REACHES: Choice<Reach> = Choice::new(
    "reach",
    "unknown-reach",
    &[("never", Reach::Never), ("always", Reach::Always)],
);

type Read = fn(&Field<'_>) -> Option<Part>;

/// One of the ends that are meant.
enum Part {
    Any,
    Of(EndsPart),
}

const FORMS: [(&str, Read); 5] = [
    ("workloads", |field| {
        let (namespaces, workloads) = subject::workloads(field)?;
        Some(Part::Of(EndsPart::Workloads {
            namespaces,
            workloads,
        }))
    }),
    ("nodes", |field| {
        selector::read(field).map(EndsPart::Nodes).map(Part::Of)
    }),
    ("cidr", |field| block(field).map(Part::Of)),
    ("internet", |field| {
        field.object()?.deny_unknown();
        Some(Part::Of(EndsPart::Internet))
    }),
    ("any", |field| {
        field.object()?.deny_unknown();
        Some(Part::Any)
    }),
];

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::ClusterWide(Annotations::OursRefused),
    );
    let place = object.require("spec");
    object.deny_unknown();
    let place = place?;
    let mut spec = place.object()?;
    let at = spec.get("at").map(|field| when::time(&field));
    let view = spec.get("view").map(|field| VIEWS.read(&field));
    let expect = spec.get("expect");
    let assert = spec.get("assert");
    spec.deny_unknown();
    if expect.is_none() && assert.is_none() {
        place.error(
            "empty-test",
            format!(
                "{} says nothing: expected `expect` or `assert`",
                place.name()
            ),
        );
    }
    let expectations = expect.map_or(Some(Vec::new()), |field| all(&field, expectation));
    let assertions = assert.map_or(Some(Vec::new()), |field| all(&field, assertion));
    let metadata = metadata?;
    let test = PolicyTest {
        name: metadata.name,
        at: match at {
            None => None,
            Some(at) => Some(at?),
        },
        view: match view {
            None => None,
            Some(view) => Some(view?),
        },
        expectations: expectations?,
        assertions: assertions?,
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Test(test),
    })
}

/// All items are read, for their problems.
fn all<T>(field: &Field<'_>, read: fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let read: Vec<_> = form::items(field, None)?.iter().map(read).collect();
    read.into_iter().collect()
}

fn expectation(field: &Field<'_>) -> Option<Expectation> {
    let mut object = field.object()?;
    let from = object.require("from");
    let to = object.require("to");
    let ports = object.require("ports");
    let verdict = object.require("verdict");
    let rule = object
        .get("rule")
        .map(|field| terms::line(&field, MAX_NAME));
    object.deny_unknown();
    let (from, to) = (
        from.and_then(|field| end(&field)),
        to.and_then(|field| end(&field)),
    );
    let ports = ports.and_then(|field| all(&field, port));
    let verdict = verdict.and_then(|field| VERDICTS.read(&field));
    Some(Expectation {
        from: from?,
        to: to?,
        ports: ports?,
        verdict: verdict?,
        rule: match rule {
            None => None,
            Some(rule) => Some(rule?),
        },
        source: field.source(),
    })
}

/// Whether it is there is for whoever has the world.
fn end(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let length = text.chars().count();
    if length > MAX_END {
        let message = format!(
            "{}: expected at most {MAX_END} characters, found {length}",
            field.name()
        );
        field.error("invalid-text", message);
        return None;
    }
    if text.parse::<IpAddr>().is_ok() {
        address::address(field)?;
    }
    Some(text.to_owned())
}

fn assertion(field: &Field<'_>) -> Option<Assertion> {
    let mut object = field.object()?;
    let name = object
        .require("name")
        .and_then(|field| terms::line(&field, MAX_NAME));
    let reach = object.require("reach");
    let from = object.get("from");
    let to = object.get("to");
    let ports = object.get("ports");
    object.deny_unknown();
    let reach = reach.and_then(|field| REACHES.read(&field));
    let ends = |field: Option<Field<'_>>| field.map_or(Some(Ends::Every), |field| ends(&field));
    let (from, to) = (ends(from), ends(to));
    let ports = ports.map_or(Some(PortSet::every()), |field| {
        all(&field, port_range).map(|ranges| PortSet::of(&ranges))
    });
    Some(Assertion {
        name: name?,
        reach: reach?,
        from: from?,
        to: to?,
        ports: ports?,
        source: field.source(),
    })
}

fn ends(field: &Field<'_>) -> Option<Ends> {
    let hint = "leave it out to mean everybody";
    let items = form::items_or_hint(field, None, Some(hint))?;
    let read: Vec<_> = items.iter().map(part).collect();
    let mut parts = Vec::new();
    for part in read.into_iter().collect::<Option<Vec<_>>>()? {
        match part {
            Part::Any => return Some(Ends::Every),
            Part::Of(part) => parts.push(part),
        }
    }
    Some(Ends::Listed(parts))
}

fn part(field: &Field<'_>) -> Option<Part> {
    let mut object = field.object()?;
    let found = form::written(&mut object, &FORMS);
    object.deny_unknown();
    let read = found.iter().map(|(read, field)| read(field)).collect();
    form::only(field, "ends-form", &FORMS, read)
}

fn block(field: &Field<'_>) -> Option<EndsPart> {
    let mut object = field.object()?;
    let block = object.require("block");
    let except = object.items("except");
    object.deny_unknown();
    match address::block(block, &except)? {
        Peer::Block { cidr, except } => Some(EndsPart::Block { cidr, except }),
        _ => None,
    }
}

/// A number alone would be that of a protocol, and mostly means a port.
fn port_text<'n>(field: &Field<'n>) -> Option<&'n str> {
    if let Value::Integer(number) = field.node().value {
        let message = format!(
            "{}: expected a protocol, and mostly a port, found {}",
            field.name(),
            field.node().describe()
        );
        let hint = format!("write `TCP/{number}`; a protocol by its number is `protocol/NUMBER`");
        field.error_with_hint("wrong-type", message, hint);
        return None;
    }
    field.string()
}

fn port(field: &Field<'_>) -> Option<Port> {
    let port = port_text(field)?.parse::<Port>();
    port.map_err(|error| field.error("invalid-port", error.to_string()))
        .ok()
}

fn port_range(field: &Field<'_>) -> Option<PortRange> {
    let text = port_text(field)?;
    let range = PortRange::parse(text);
    if range.is_none() {
        let message = format!(
            "no ports: {}; expected `TCP/443`, `TCP/8000-8080`, `UDP`, `ICMP/*`, `protocol/47`, or what \
             else `explain` takes as a port",
            quote(text)
        );
        if is_digits(text) {
            field.error_with_hint("invalid-port", message, format!("write `TCP/{text}`"));
        } else {
            field.error("invalid-port", message);
        }
    }
    range
}

#[cfg(test)]
mod tests {
    use crate::load::parse_file;

    fn problems(spec: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: ringfence.io/v1alpha1\nkind: PolicyTest\nmetadata: {{name: t}}\nspec: \
             {spec}\n"
        );
        let file = parse_file("t.yaml".into(), text.as_bytes());
        let said = file.diagnostics.iter();
        said.map(|one| format!("{} {}", one.code, one.path))
            .collect()
    }

    #[test]
    fn a_whole_test_is_read() {
        let spec = "{at: 2026-12-01T10:00:00Z, view: staged, \
            expect: [{from: a/b, to: 192.0.2.1, ports: [TCP/1, ICMP], verdict: deny, rule: x}], \
            assert: [{name: n, reach: never, from: [{internet: {}}, {cidr: {block: 10.0.0.0/8, \
            except: [10.1.0.0/16]}}], to: [{workloads: {selector: {matchLabels: {app: db}}}}, \
            {nodes: {}}], ports: [TCP, UDP/53-54, protocol/47, ICMP/*]}, {name: m, reach: always, \
            from: [{any: {}}]}]}";
        assert_eq!(problems(spec), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        for (spec, expected) in [
            ("{}", "empty-test spec"),
            ("{expect: []}", "too-few-items spec.expect"),
            (
                "{expect: [{from: a/b, to: a/b, verdict: deny}]}",
                "missing-field spec.expect[0].ports",
            ),
            (
                "{expect: [{from: a/b, to: a/b, ports: [http], verdict: deny}]}",
                "invalid-port spec.expect[0].ports[0]",
            ),
            (
                "{expect: [{from: a/b, to: a/b, ports: [TCP/1], verdict: maybe}]}",
                "unknown-verdict spec.expect[0].verdict",
            ),
            (
                "{assert: [{name: n, reach: seldom}]}",
                "unknown-reach spec.assert[0].reach",
            ),
            (
                "{assert: [{name: n, reach: never, from: [{nodes: {}, any: {}}]}]}",
                "ends-form spec.assert[0].from[0]",
            ),
            (
                "{assert: [{name: n, reach: never, ports: [TCP/9-1]}]}",
                "invalid-port spec.assert[0].ports[0]",
            ),
            (
                "{at: soon, expect: [{from: a/b, to: a/b, ports: [TCP/1], verdict: deny}]}",
                "invalid-time spec.at",
            ),
        ] {
            assert_eq!(problems(spec), [expected], "{spec}");
        }
    }
}
