//! One list for the labels of an enum: a variant without a label does not compile.

/// Gives an enum `label()` and `LABELS` out of one list; `all` also gives `ALL` to an enum without fields.
macro_rules! labels {
    (all $type:ident { $($variant:ident => $label:literal),+ $(,)? }) => {
        impl $type {
            /// All variants.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// All labels, in the same order.
            pub const LABELS: [&str; [$($label),+].len()] = [$($label),+];

            /// The label, as in JSON, metrics and the store.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
    ($type:ident { $($pattern:pat => $label:literal),+ $(,)? }) => {
        impl $type {
            /// All labels.
            pub const LABELS: [&str; [$($label),+].len()] = [$($label),+];

            /// The label, as in JSON, metrics and the store.
            #[must_use]
            pub const fn label(&self) -> &'static str {
                match self {
                    $($pattern => $label,)+
                }
            }
        }
    };
}

pub(crate) use labels;
