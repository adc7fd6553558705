// A library without any function is made of this: it is there for its name alone (CMakeLists.txt).
typedef int cn2_nothing;
