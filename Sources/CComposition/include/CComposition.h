#ifndef CCOMPOSITION_H
#define CCOMPOSITION_H

#include <stddef.h>

/// A module that Package.swift names as a built-in plugin.
struct built_in_module {
  const char *name;
  /// The access function of the metadata of the class that is named as the module (Swift's ABI, TypeMetadata.rst); NULL
  /// where the module has no such class. The request 0 stands for complete metadata.
  const void *(*type)(size_t request);
};

/// The built-in modules, in the order of Package.swift.
const struct built_in_module *built_in_modules(size_t *count);

#endif
