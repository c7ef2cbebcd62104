# SPDX-License-Identifier: Apache-2.0
# modist_library(<target> SOURCES <file>... LINKS <our library>... USES <foreign library>...)
#
# The library of one folder. LINKS are its left neighbours, whose headers its own headers may
# include; USES are foreign libraries, which stay private. Without sources only LINKS are passed on.
function(modist_library target)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS;USES" ${ARGN})
  if(NOT ARG_SOURCES)
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE modist_flags ${ARG_LINKS})
    return()
  endif()
  add_library(${target} STATIC ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES
    C_EXTENSIONS OFF C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${target} PUBLIC modist_flags ${ARG_LINKS} PRIVATE ${ARG_USES})
endfunction()

# modist_program(<target> SOURCES <file>... LINKS <library>...)
function(modist_program target)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  if(NOT ARG_SOURCES)
    return()
  endif()
  add_executable(${target} ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES
    C_EXTENSIONS OFF C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
  if(MODIST_SANITIZE)  # instrumented JIT code finds the sanitizer's functions in the program
    set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON)
  endif()
  target_link_libraries(${target} PRIVATE modist_flags ${ARG_LINKS})
endfunction()
