/// What can go wrong.  Every message says what was asked, what was found and what to do next.
///
///     Error                        base of all, a std::runtime_error
///     ├── RuntimeError             Python or camrt cannot be started in this process, or the process is exiting
///     ├── PythonError              Python raised what camrt never raises on purpose: out of memory, a defect
///     └── CamrtError               base of what camrt raises on purpose; the classes below are those of camrt.errors

#pragma once

#include <stdexcept>
#include <string>

namespace camrt {

/// Base of every error that this library throws.
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Python or camrt cannot be started in this process, or the process is exiting.
class RuntimeError : public Error {
    using Error::Error;
};

/// Python raised what camrt never raises on purpose: out of memory, a defect.  The text starts with the class's name.
class PythonError : public Error {
    using Error::Error;
};

/// Base of every error that camrt raises on purpose.
class CamrtError : public Error {
    using Error::Error;
};

/// A bundle folder is missing, damaged, tampered with or of another version.
class BundleError : public CamrtError {
    using CamrtError::CamrtError;
};

/// A model cannot be cut into a bundle.
class ExportError : public CamrtError {
    using CamrtError::CamrtError;
};

/// No tensor, node or module of that name is in the model.
class UnknownLayer : public ExportError {
    using ExportError::ExportError;
};

/// An execution provider is not installed or did not start.
class ProviderError : public CamrtError {
    using CamrtError::CamrtError;
};

/// The device has no memory left for a graph or for the images.
class DeviceMemoryError : public CamrtError {
    using CamrtError::CamrtError;
};

/// An image cannot be read.
class ImageError : public CamrtError {
    using CamrtError::CamrtError;
};

/// An argument is outside what is allowed.
class ParameterError : public CamrtError {
    using CamrtError::CamrtError;
};

/// No method has this name.
class UnknownMethod : public ParameterError {
    using ParameterError::ParameterError;
};

/// No class has this name or index.
class UnknownTarget : public ParameterError {
    using ParameterError::ParameterError;
};

/// What a method needs is not there: gradients in the bundle, a tail of the right form, an optional package.
class MethodUnavailable : public CamrtError {
    using CamrtError::CamrtError;
};

/// An explanation cannot be written.
class ExplanationError : public CamrtError {
    using CamrtError::CamrtError;
};

/// A dataset of explanations cannot be written, read or gone on with.
class BatchError : public CamrtError {
    using CamrtError::CamrtError;
};

namespace detail {

template <class E>
[[noreturn]] void raise_as(const std::string& text) {
    throw E(text);
}

/// Throw the class that camrt.errors knows by this name; PythonError for an empty name.
[[noreturn]] inline void raise(const std::string& name, const std::string& text) {
    struct Row {
        const char* name;
        void (*raise)(const std::string&);
    };
    static constexpr Row rows[] = {
        {"BundleError", raise_as<BundleError>},
        {"ExportError", raise_as<ExportError>},
        {"UnknownLayer", raise_as<UnknownLayer>},
        {"ProviderError", raise_as<ProviderError>},
        {"DeviceMemoryError", raise_as<DeviceMemoryError>},
        {"ImageError", raise_as<ImageError>},
        {"ParameterError", raise_as<ParameterError>},
        {"UnknownMethod", raise_as<UnknownMethod>},
        {"UnknownTarget", raise_as<UnknownTarget>},
        {"MethodUnavailable", raise_as<MethodUnavailable>},
        {"ExplanationError", raise_as<ExplanationError>},
        {"BatchError", raise_as<BatchError>},
    };
    for (const Row& row : rows) {
        if (name == row.name) row.raise(text);
    }
    if (name.empty()) throw PythonError(text);
    throw CamrtError(text);
}

}  // namespace detail
}  // namespace camrt
