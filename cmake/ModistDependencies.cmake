# SPDX-License-Identifier: Apache-2.0
# Finds what modist uses. All of it is in Debian 12: tools/deps.sh installs it.
set(MODIST_LLVM_TESTED 19)

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
if(MODIST_RUNTIME_ONLY)
  return()
endif()
pkg_check_modules(FFMPEG REQUIRED IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
pkg_check_modules(FYAML REQUIRED IMPORTED_TARGET libfyaml)
if(MODIST_TESTS)
  pkg_check_modules(CHECK REQUIRED IMPORTED_TARGET check>=0.15)
endif()

# LLVM through its C API only, as one shared library: target Modist::LLVM.
find_program(MODIST_LLVM_CONFIG NAMES llvm-config-${MODIST_LLVM_TESTED} llvm-config
             DOC "llvm-config of the LLVM to build with")
if(NOT MODIST_LLVM_CONFIG)
  message(FATAL_ERROR "LLVM ${MODIST_LLVM_TESTED} is needed, but llvm-config-${MODIST_LLVM_TESTED} "
                      "was not found.\nInstall it: apt-get install llvm-${MODIST_LLVM_TESTED}-dev")
endif()
function(modist_ask_llvm out)
  execute_process(COMMAND "${MODIST_LLVM_CONFIG}" ${ARGN} OUTPUT_VARIABLE text
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${out} "${text}" PARENT_SCOPE)
endfunction()
modist_ask_llvm(MODIST_LLVM_VERSION --version)
if(NOT MODIST_LLVM_VERSION MATCHES "^${MODIST_LLVM_TESTED}\\." AND NOT MODIST_ANY_LLVM)
  message(FATAL_ERROR "LLVM ${MODIST_LLVM_TESTED} is what modist is tested with, but "
                      "${MODIST_LLVM_CONFIG} is version ${MODIST_LLVM_VERSION}.\n"
                      "Install it: apt-get install llvm-${MODIST_LLVM_TESTED}-dev\n"
                      "Or try this one at your own risk: -DMODIST_ANY_LLVM=ON")
endif()
modist_ask_llvm(llvm_include --includedir)
modist_ask_llvm(llvm_libdir --libdir)
string(REGEX MATCH "^[0-9]+" llvm_major "${MODIST_LLVM_VERSION}")
find_library(MODIST_LLVM_LIBRARY NAMES LLVM-${llvm_major} LLVM HINTS "${llvm_libdir}" REQUIRED)
add_library(Modist::LLVM UNKNOWN IMPORTED)
set_target_properties(Modist::LLVM PROPERTIES
  IMPORTED_LOCATION "${MODIST_LLVM_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${llvm_include}")

# Text tests: lit and FileCheck come with LLVM's tools.
if(MODIST_TESTS)
  find_program(MODIST_FILECHECK NAMES FileCheck-${llvm_major} FileCheck)
  find_file(MODIST_LIT lit.py HINTS "${llvm_libdir}/../build/utils/lit")
endif()

# lld links the host code inside an artefact; LLVM has no C API for it, so it is a program.
find_program(MODIST_LLD NAMES ld.lld-${MODIST_LLVM_TESTED} DOC "ld.lld for host code in artefacts")

# CUDA libraries are opened at run time and no CUDA header is needed, so AUTO always builds.
find_library(MODIST_NVRTC NAMES nvrtc HINTS /usr/local/cuda/lib64 /usr/local/cuda/lib)
mark_as_advanced(MODIST_NVRTC)
set(MODIST_HAVE_CUDA ON)
if(MODIST_CUDA STREQUAL "OFF")
  set(MODIST_HAVE_CUDA OFF)
elseif(MODIST_CUDA STREQUAL "ON" AND NOT MODIST_NVRTC)
  message(FATAL_ERROR "MODIST_CUDA=ON, but libnvrtc was not found; -DMODIST_NVRTC=<path> names it")
endif()

target_compile_definitions(modist_flags INTERFACE MODIST_HAVE_CUDA=$<BOOL:${MODIST_HAVE_CUDA}>)

function(modist_summary)
  set(lld "${MODIST_LLD}")
  if(NOT lld)
    set(lld "not found (no host code in artefacts; apt-get install lld-${MODIST_LLVM_TESTED})")
  endif()
  set(nvrtc "${MODIST_NVRTC}")
  if(NOT nvrtc)
    set(nvrtc "not here (looked for again at run time)")
  endif()
  set(sanitize "${MODIST_SANITIZE}")
  if(NOT sanitize)
    set(sanitize "none")
  endif()
  message(STATUS "modist ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, ${CMAKE_C_COMPILER_ID} "
                 "${CMAKE_C_COMPILER_VERSION}")
  message(STATUS "  LLVM        ${MODIST_LLVM_VERSION} (${MODIST_LLVM_LIBRARY})")
  message(STATUS "  lld         ${lld}")
  message(STATUS "  FFmpeg      libavformat ${FFMPEG_libavformat_VERSION}, "
                 "libavcodec ${FFMPEG_libavcodec_VERSION}")
  message(STATUS "  text        libfyaml ${FYAML_VERSION}, jansson ${JANSSON_VERSION}")
  message(STATUS "  bytes       xxhash ${XXHASH_VERSION}, zlib ${ZLIB_VERSION}")
  message(STATUS "  CUDA        ${MODIST_HAVE_CUDA}; NVRTC ${nvrtc}")
  message(STATUS "  tests       ${MODIST_TESTS}; check ${CHECK_VERSION}, FileCheck ${MODIST_FILECHECK}, "
                 "lit ${MODIST_LIT}")
  message(STATUS "  sanitizers  ${sanitize}; hostile arena ${MODIST_HOSTILE_ARENA}")
endfunction()
