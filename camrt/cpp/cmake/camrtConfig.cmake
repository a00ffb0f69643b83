# camrt for CMake:
#
#     find_package(camrt REQUIRED)
#     target_link_libraries(app PRIVATE camrt::camrt)
#
# camrt::camrt brings camrt.hpp, C++20, pybind11's embedding and threads.  Python is Python_EXECUTABLE where that is given,
# else the virtual environment that this file lies in, else the active one; camrt_VENV is its folder, for camrt::Runtime.

if(TARGET camrt::camrt)
  return()
endif()

get_filename_component(_camrt_cpp "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
# <venv>/lib/python3.x/site-packages/camrt/cpp
get_filename_component(_camrt_around "${_camrt_cpp}/../../../../.." ABSOLUTE)
if(NOT Python_EXECUTABLE)
  if(EXISTS "${_camrt_around}/pyvenv.cfg")
    set(Python_EXECUTABLE "${_camrt_around}/bin/python")
  elseif(DEFINED ENV{VIRTUAL_ENV})
    set(Python_EXECUTABLE "$ENV{VIRTUAL_ENV}/bin/python")
  endif()
endif()

# Say why camrt cannot be used, in the words of find_package, and leave; the text holds no semicolon.
macro(_camrt_refuse)
  string(CONCAT ${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE ${ARGN})
  set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
  return()
endmacro()

if(NOT Python_EXECUTABLE)
  _camrt_refuse("camrt lies in no virtual environment and none is active. Give -DPython_EXECUTABLE=VENV/bin/python of the one "
                "that holds camrt, or configure with: cmake $(camrt cpp --cmake-flags)")
endif()

execute_process(
  COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
  OUTPUT_VARIABLE _camrt_pybind11 ERROR_VARIABLE _camrt_error RESULT_VARIABLE _camrt_result
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
if(NOT _camrt_result EQUAL 0)
  _camrt_refuse("${Python_EXECUTABLE} has no pybind11 (${_camrt_error}). Install it with: "
                "${Python_EXECUTABLE} -m pip install pybind11")
endif()

string(CONCAT _camrt_advice "Install them, on Debian and Ubuntu with: apt install libpython3-dev (pyenv builds them with "
       "PYTHON_CONFIGURE_OPTS=--enable-shared). Then make the virtual environment from that Python")
find_package(Python QUIET COMPONENTS Interpreter Development.Module Development.Embed)
if(NOT Python_Development.Embed_FOUND)
  _camrt_refuse("The Python of ${Python_EXECUTABLE} has no headers or no library to embed (libpython). " ${_camrt_advice})
endif()
# From a static one the linker leaves out what NumPy's modules look for later.
get_target_property(_camrt_kind Python::Python TYPE)
if(_camrt_kind STREQUAL "STATIC_LIBRARY")
  _camrt_refuse("The Python of ${Python_EXECUTABLE} has only a static library (${Python_LIBRARIES}), and a host needs headers "
                "and a shared one. " ${_camrt_advice})
endif()

include(CMakeFindDependencyMacro)
set(PYBIND11_FINDPYTHON ON)
find_dependency(pybind11 2.13 CONFIG PATHS "${_camrt_pybind11}" NO_DEFAULT_PATH)
find_dependency(Threads)

execute_process(COMMAND "${Python_EXECUTABLE}" -c "import sys; print(sys.prefix)"
  OUTPUT_VARIABLE camrt_VENV OUTPUT_STRIP_TRAILING_WHITESPACE)

add_library(camrt::camrt INTERFACE IMPORTED)
target_include_directories(camrt::camrt INTERFACE "${_camrt_cpp}")
target_compile_features(camrt::camrt INTERFACE cxx_std_20)
target_link_libraries(camrt::camrt INTERFACE pybind11::embed Threads::Threads ${CMAKE_DL_LIBS})
