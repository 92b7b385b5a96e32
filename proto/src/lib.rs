//! The part of Apache SkyWalking's collect protocol that `skywalking-profile` speaks.
//!
//! The messages and gRPC clients for profile tasks, thread snapshots, trace segments and service
//! instances, written from SkyWalking's protocol (`skywalking.v3`). It is a subset, compatible on
//! the wire: the same packages, services, methods, field numbers and types; what is left out here
//! is skipped when received.
//!
//! The clients work over any gRPC transport of `tonic`; this crate opens no connection.
//!
//! # Regenerating
//!
//! The code in `src/generated` is made from the files in `proto` and committed, so that a build
//! needs neither protoc nor a build script. A test fails when the two differ; this rewrites the
//! code:
//!
//! ```sh
//! BLESS=1 cargo test -p skywalking-profile-proto --test generated
//! ```

#![forbid(unsafe_code)]

/// Messages and clients of the protocol package `skywalking.v3`.
#[allow(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod v3 {
    // If the file is lost, put an empty one in its place and regenerate.
    include!("generated/skywalking.v3.rs");
}
