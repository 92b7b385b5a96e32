//! The tower layer: decides once per request whether it is followed, and then watches its future and its body.

mod body;
mod future;
#[expect(clippy::module_inception, reason = "tower's words: the module of a layer has its layer, service and future")]
mod layer;
mod service;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::ProfileLayer;
pub use service::Profile;
