//! Objects of which exactly one field is written, and lists that may be only so long.

use super::{
    choice::alternatives,
    reader::{Field, Object},
};

/// A field is not what it must be, which has been reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

/// What a field says that may be left out.
pub(super) fn optional<'n, T>(
    field: Option<Field<'n>>,
    read: impl FnOnce(&Field<'n>) -> Option<T>,
) -> Result<Option<T>, Broken> {
    field.map(|field| read(&field).ok_or(Broken)).transpose()
}

/// The fields of `forms` that are written, each with what stands for it there.
pub(super) fn written<'n, T: Copy>(
    object: &mut Object<'n>,
    forms: &[(&'static str, T)],
) -> Vec<(T, Field<'n>)> {
    forms
        .iter()
        .filter_map(|(name, form)| Some((*form, object.get(name)?)))
        .collect()
}

/// What the one form that is written was read as. All of them are read before, for their problems.
pub(super) fn only<F, T>(
    place: &Field<'_>,
    code: &'static str,
    forms: &[(&'static str, F)],
    read: Vec<Option<T>>,
) -> Option<T> {
    let found = read.len();
    let mut read = read.into_iter();
    if let (Some(one), None) = (read.next(), read.next()) {
        return one;
    }
    if found == 0 && place.has_refused_null() {
        return None;
    }
    let names: Vec<_> = forms.iter().map(|(name, _)| *name).collect();
    let message = format!(
        "{}: expected exactly one of {}, found {found}",
        place.name(),
        alternatives(&names, "and")
    );
    place.error(code, message);
    None
}

/// The items of a list that has at least one and at most `most`, where the API sets a bound.
pub(super) fn items<'n>(field: &Field<'n>, most: Option<usize>) -> Option<Vec<Field<'n>>> {
    items_or_hint(field, most, None)
}

/// As [`items`]; the hint is for whoever means something by an empty list.
pub(super) fn items_or_hint<'n>(
    field: &Field<'n>,
    most: Option<usize>,
    hint: Option<&str>,
) -> Option<Vec<Field<'n>>> {
    let items = at_most(field, most.unwrap_or(usize::MAX))?;
    if items.is_empty() {
        let message = format!("{}: expected at least one item, found none", field.name());
        match hint {
            Some(hint) => field.error_with_hint("too-few-items", message, hint),
            None => field.error("too-few-items", message),
        }
        return None;
    }
    Some(items)
}

pub(super) fn at_most<'n>(field: &Field<'n>, most: usize) -> Option<Vec<Field<'n>>> {
    let items = field.list()?;
    if items.len() > most {
        let message = format!(
            "{}: expected at most {most} items, found {}",
            field.name(),
            items.len()
        );
        field.error("too-many-items", message);
    }
    Some(items)
}

/// What all items were read as. Every one is read, for its problems, although the list is broken
/// after the first.
pub(super) fn each<'n, T>(
    items: &[Field<'n>],
    read: impl FnMut(&Field<'n>) -> Option<T>,
) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.iter().map(read).collect();
    read.into_iter().collect()
}

/// A number within bounds that are not those of a type.
pub(super) fn number(
    field: &Field<'_>,
    code: &'static str,
    what: &str,
    (least, most): (u16, u16),
) -> Option<u16> {
    let seen = field.integer()?;
    let number = u16::try_from(seen)
        .ok()
        .filter(|number| (least..=most).contains(number));
    if number.is_none() {
        let message = format!("invalid {what} {seen}: expected {least} to {most}");
        field.error(code, message);
    }
    number
}

/// An octet of a header.
pub(super) fn octet(field: &Field<'_>, code: &'static str, what: &str) -> Option<u8> {
    number(field, code, what, (0, u16::from(u8::MAX))).and_then(|number| u8::try_from(number).ok())
}
