# SPDX-License-Identifier: Apache-2.0
# What is installed besides programs and libraries: the public headers, the CMake package, modist.pc.
# Both package files find their folder from where they lie, so that the tree can be moved.
include(CMakePackageConfigHelpers)

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/modist" TYPE INCLUDE FILES_MATCHING PATTERN "*.h")

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Modist")
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/ModistConfig.cmake.in" "${PROJECT_BINARY_DIR}/ModistConfig.cmake"
  INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/ModistConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ModistConfig.cmake"
              "${PROJECT_BINARY_DIR}/ModistConfigVersion.cmake" DESTINATION "${package_dir}")
install(EXPORT ModistTargets NAMESPACE Modist:: DESTINATION "${package_dir}")

set(pkgconfig_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
file(RELATIVE_PATH PREFIX_FROM_PKGCONFIG "/p/${pkgconfig_dir}" "/p")
configure_file("${PROJECT_SOURCE_DIR}/cmake/modist.pc.in" "${PROJECT_BINARY_DIR}/modist.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/modist.pc" DESTINATION "${pkgconfig_dir}")
