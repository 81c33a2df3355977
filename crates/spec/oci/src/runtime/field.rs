//! How every structure of the specification is read and written.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default, as the programs that write `config.json` may put it.
pub(super) fn or_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

/// Whether a field says nothing, so that it is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares structures whose fields are read as their default when absent or `null`.
///
/// A field is written unless it has its default; `kept` fields are always written, and
/// `named` ones, which have no default, must be there.
macro_rules! words {
    ($(#[$about:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* $($field:ident)+ ($key:literal): $type:ty,)*
    }) => {
        words!(@struct [$(#[$about])*] $name [] $($(#[$doc])* [$($field)+] $key $type;)*);
    };
    (@struct [$($about:tt)*] $name:ident [$($done:tt)*] $(#[$doc:meta])* [kept $field:ident] $key:literal $type:ty; $($rest:tt)*) => {
        words!(@struct [$($about)*] $name [$($done)*
            $(#[$doc])*
            #[serde(rename = $key, default, deserialize_with = "crate::runtime::field::or_default")]
            pub $field: $type,
        ] $($rest)*);
    };
    (@struct [$($about:tt)*] $name:ident [$($done:tt)*] $(#[$doc:meta])* [named $field:ident] $key:literal $type:ty; $($rest:tt)*) => {
        words!(@struct [$($about)*] $name [$($done)*
            $(#[$doc])*
            #[serde(rename = $key)]
            pub $field: $type,
        ] $($rest)*);
    };
    (@struct [$($about:tt)*] $name:ident [$($done:tt)*] $(#[$doc:meta])* [$field:ident] $key:literal $type:ty; $($rest:tt)*) => {
        words!(@struct [$($about)*] $name [$($done)*
            $(#[$doc])*
            #[serde(
                rename = $key,
                default,
                deserialize_with = "crate::runtime::field::or_default",
                skip_serializing_if = "crate::runtime::field::is_default"
            )]
            pub $field: $type,
        ] $($rest)*);
    };
    (@struct [$($about:tt)*] $name:ident [$($done:tt)*]) => {
        $($about)*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
        pub struct $name { $($done)* }
    };
}

/// Declares a closed set of words.
macro_rules! closed {
    ($(#[$about:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word of the specification.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.word())
            }
        }
    };
}

pub(super) use {closed, words};
