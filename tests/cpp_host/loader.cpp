// Loads a plugin as most programs do, its symbols kept from others: loader PLUGIN VENV PHOTO [close]

#include <dlfcn.h>

#include <cstdio>

int main(int argc, char** argv) {
    void* const plugin = argc >= 4 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!plugin) {
        std::fprintf(stderr, "%s\n", argc >= 4 ? dlerror() : "loader PLUGIN VENV PHOTO [close]");
        return 2;
    }
    const auto call = reinterpret_cast<int (*)(const char*, const char*)>(dlsym(plugin, "name_the_class"));
    int failed = call(argv[2], argv[3]);
    if (argc > 4) {
        dlclose(plugin);
        void* const again = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        failed += reinterpret_cast<int (*)(const char*, const char*)>(dlsym(again, "name_the_class"))(argv[2], argv[3]);
    }
    return failed;
}
