# SPDX-License-Identifier: Apache-2.0
# Language, warnings, instrumentation and include folders, as one target that everything links to.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release, RelWithDebInfo" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(modist_flags INTERFACE)
target_compile_features(modist_flags INTERFACE c_std_17)
target_include_directories(modist_flags INTERFACE "${PROJECT_SOURCE_DIR}"
                                                  "${PROJECT_SOURCE_DIR}/include")
target_compile_definitions(modist_flags INTERFACE
  _GNU_SOURCE
  MODIST_VERSION="${PROJECT_VERSION}"
  $<$<BOOL:${MODIST_HOSTILE_ARENA}>:MODIST_HOSTILE_ARENA>)
# No contraction: results must not depend on which compiler saw a chance for an FMA. Named constants
# are enums here, also where they meet floating-point numbers.
target_compile_options(modist_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -ffp-contract=off
  $<$<C_COMPILER_ID:Clang>:-Wno-enum-float-conversion>
  $<$<BOOL:${MODIST_WERROR}>:-Werror>)
target_link_options(modist_flags INTERFACE -Wl,--as-needed)

if(MODIST_SANITIZE)
  target_compile_options(modist_flags INTERFACE
    -fsanitize=${MODIST_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
    # It reads the bytes before a called function, which nobody puts before JIT code.
    $<$<C_COMPILER_ID:Clang>:-fno-sanitize=function>)
  target_link_options(modist_flags INTERFACE -fsanitize=${MODIST_SANITIZE})
endif()
if(MODIST_COVERAGE)
  target_compile_options(modist_flags INTERFACE --coverage)
  target_link_options(modist_flags INTERFACE --coverage)
endif()
