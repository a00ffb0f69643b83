// A host that is itself a plugin, for programs that know nothing of camrt or Python: see loader.cpp.

#include <camrt.hpp>

#include <cstdio>
#include <string>
#include <vector>

extern "C" int name_the_class(const char* venv, const char* photo) {
    try {
        static const camrt::Runtime runtime{venv};
        static const camrt::Explainer explainer = runtime.load("shapes", {.providers = {"cpu"}});
        std::printf("%s\n", explainer.explain(photo).target(0).label.c_str());
        return 0;
    } catch (const camrt::Error& error) {
        std::printf("%s\n", error.what());
        return 1;
    }
}
