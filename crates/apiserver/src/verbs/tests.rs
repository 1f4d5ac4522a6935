//! The verbs against a real store, through the whole chain of filters.

mod clients;
mod deletes;
mod events;
mod filters;
mod hostile;
mod lists;
mod nodes;
mod watches;
mod writes;
