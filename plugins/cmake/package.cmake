# find_package(cn2) and pkg-config's cn2.pc, for those who build against an installed libcn2.
# Both find it from where they lie themselves, so the installed tree can be moved.

include(CMakePackageConfigHelpers)
set(CN2_CMAKE_FOLDER ${CMAKE_INSTALL_LIBDIR}/cmake/cn2)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/cn2-config.cmake.in
                              ${PROJECT_BINARY_DIR}/cn2-config.cmake
                              INSTALL_DESTINATION ${CN2_CMAKE_FOLDER})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cn2-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cn2-config.cmake ${PROJECT_BINARY_DIR}/cn2-config-version.cmake
        DESTINATION ${CN2_CMAKE_FOLDER} COMPONENT development)
install(EXPORT cn2-targets NAMESPACE cn2:: DESTINATION ${CN2_CMAKE_FOLDER} COMPONENT development)

file(RELATIVE_PATH CN2_PREFIX_FROM_PKGCONFIG /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/cmake/cn2.pc.in ${PROJECT_BINARY_DIR}/cn2.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/cn2.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT development)
