#include "CComposition.h"

// BUILT_IN_MODULES comes from Package.swift: MODULE(name, length of the name) for each.

// The symbols of Swift's mangling (Mangling.rst): $s <length> <module>, AA for a type of the same name, C for a class,
// Ma for the access function of its metadata. Weak, so that a class that is not there is told in words and by name.
#define MODULE(name, length) \
  extern const void *name(size_t request) __asm__("$s" #length #name "AACMa") __attribute__((weak));
BUILT_IN_MODULES
#undef MODULE

#define MODULE(name, length) {#name, name},
static const struct built_in_module modules[] = {BUILT_IN_MODULES};

const struct built_in_module *built_in_modules(size_t *count) {
  *count = sizeof modules / sizeof *modules;
  return modules;
}
