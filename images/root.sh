#!/bin/sh
# Usage: images/root.sh FOLDER. Puts this machine's `python` and what it needs to run, and nothing else, into FOLDER as the root of
# an image, beside the packages that are there already: the interpreter and its library without pip, the shared libraries that all of it loads, certificate authorities, time zones, and
# a passwd line for the user that the image runs as. No shell, no package manager.
set -eu
out=$1
here=$(dirname "$0")
prefix=$(python -c 'import sys; print(sys.base_prefix)')
version=$(python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

mkdir -p "$out/etc" "$out/usr/local/bin" "$out/tmp"
chmod 1777 "$out/tmp"
cp "$here/passwd" "$here/group" "$out/etc/"
copy() { # a path with its parents, links as links and what they lead to
  [ -e "$1" ] || return 0
  tar -C / -cf - "${1#/}" | tar -C "$out" -xf -
  if [ -L "$1" ]; then copy "$(readlink -f "$1")"; fi
}

copy "$prefix/bin/$version"
ln -sf "$prefix/bin/$version" "$out/usr/local/bin/python"
[ "$prefix/bin" = /usr/local/bin ] || ln -sf "$prefix/bin/$version" "$out/usr/local/bin/$version"
tar -C / -cf - --exclude=site-packages --exclude=ensurepip --exclude=idlelib --exclude=lib2to3 --exclude=pydoc_data \
  --exclude=tkinter --exclude=turtledemo --exclude=test --exclude=tests --exclude=__pycache__ --exclude='config-*' --exclude='_tkinter*' \
  "${prefix#/}/lib/$version" | tar -C "$out" -xf -
for library in "$prefix"/lib/libpython3*.so*; do copy "$library"; done

# What these load, and the loader. /lib is a link to usr/lib in Debian and stays one.
for place in lib lib64; do if [ -L "/$place" ]; then mkdir -p "$out/$(readlink "/$place")" && ln -sf "$(readlink "/$place")" "$out/$place"; fi; done
find "$out" -type f \( -name '*.so' -o -name '*.so.*' -o -path "*/bin/$version" \) -exec ldd {} + 2>/dev/null \
  | sed -nE 's#^.*(=> |^[[:space:]])(/[^ ]+) \(0x.*#\2#p' | sort -u | while read -r library; do
    case $library in "$out"/*) ;; *) copy "$(readlink -f "$(dirname "$library")")/$(basename "$library")" ;; esac
  done
# The loader is asked for by a fixed path.
loader=$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* 2>/dev/null | head -n 1)
mkdir -p "$out$(dirname "$(readlink -f "$loader")")"
[ -e "$out$loader" ] || cp -L "$loader" "$out$loader"

for path in /etc/ssl /usr/lib/ssl /usr/share/ca-certificates /usr/share/zoneinfo /etc/nsswitch.conf; do copy "$path"; done
rm -rf "$out/etc/ssl/private"
