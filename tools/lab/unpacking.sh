# Functions of tools/prepare-judge and tools/prepare-clients: packages of another Debian release are
# unpacked into a folder of the lab's cache. Nothing is installed, nobody has to be root.
#
# They read $me (the tool's name). `open_cache` sets $cache, `unpack` calls `is_complete ROOT` of the tool.
# shellcheck shell=bash

keys=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "$me: $*"; }
die() { echo "$me: $*" >&2; exit 1; }

# Sets $cache, the lab's cache; it belongs to the user who called sudo.
open_cache() {
    local home=$HOME
    if ((EUID == 0)) && [[ -n ${SUDO_USER:-} ]]; then
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    fi
    cache=${CCID_LAB_CACHE:-$home/.cache/ccid-lab-1}
}

# is_there FOLDER STAMP: was it unpacked, by this version of the tool?
is_there() { [[ -s $cache/$1/versions && $(head -n 1 "$cache/$1/versions") == "$2" ]]; }

# versions FOLDER: the packages that are there.
versions() { sed 1d "$cache/$1/versions" | paste -sd ' '; }

# What this host must have.
need_debian() {
    local program
    for program in apt-get dpkg-deb flock; do
        command -v $program >/dev/null || die "needs Debian (or a system like it): no $program here"
    done
    [[ $(dpkg --print-architecture) == amd64 ]] ||
        die "unpacks packages for amd64 machines; this one is not one"
    [[ -s $keys ]] || die "no $keys: apt-get install debian-archive-keyring"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
        grep -v -- '-security' | head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian}
}

# An apt of its own in $work/apt: it knows the suite $1 alone, and thinks that nothing is installed.
make_apt() {
    local apt=$work/apt
    mkdir -p "$apt"/{lists,cache/archives,parts,debs}/partial
    touch "$apt/status"
    echo "deb [signed-by=$keys] $mirror $1 main" >"$apt/sources.list"
    cat >"$apt/conf" <<C
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "$apt/parts";
Dir::Etc::PreferencesParts "$apt/parts";
Dir::Etc::Preferences "/dev/null";
Acquire::Languages "none";
APT::Sandbox::User "root";
C
}

# run_apt COMMAND...: a program of apt, with that apt.
run_apt() {
    APT_CONFIG=$work/apt/conf "$@" 2>"$work/log" || {
        tail -n 5 "$work/log" >&2
        die "$1 $2 failed: is there a network, and does $mirror have the suite?"
    }
}

# unpack FOLDER SUITE STAMP WANTED UNWANTED PACKAGE...: unpack packages of a suite, and of what apt
# would install with them those whose names match the regular expression WANTED and not UNWANTED.
# Does nothing if another process has done it meanwhile, unless $force is set.
unpack() {
    local folder=$1 suite=$2 stamp=$3 wanted=$4 unwanted=$5 names package
    shift 5
    mkdir -p "$(dirname "$cache/$folder")"
    cache=$(cd "$cache" && pwd)
    exec 9>"$cache/$folder.lock"
    flock 9 # of two processes, one unpacks and the other waits
    if [[ -z ${force:-} ]] && is_there "$folder" "$stamp"; then
        say "ready ($cache/$folder: $(versions "$folder"))"
        return
    fi
    work=$(mktemp -d "$cache/$folder.XXXXXX")
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    make_apt "$suite"
    say "asking $mirror for $suite"
    run_apt apt-get update -qq >/dev/null
    run_apt apt-get install -s --no-install-recommends "$@" >"$work/plan"
    names=$(awk -v wanted="$wanted" -v unwanted="$unwanted" \
        '$1 == "Inst" && $2 ~ wanted && $2 !~ unwanted { print $2 }' "$work/plan")
    [[ -n $names ]] || die "apt has no plan for $* of $suite"
    cd "$work/apt/debs"
    # shellcheck disable=SC2086 # a word for each package
    run_apt apt-get download -qq $names >/dev/null

    local root=$work/root
    mkdir -p "$root"/{etc,usr/{bin,sbin,lib,lib64},dev,proc,sys,run,tmp}
    for package in bin sbin lib lib64; do ln -s "usr/$package" "$root/$package"; done
    for package in ./*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$root" --no-same-owner --keep-directory-symlink --exclude='./usr/share/*'
    done
    ldconfig -r "$root" 2>/dev/null || /sbin/ldconfig -r "$root"
    is_complete "$root"
    {
        echo "$stamp"
        for package; do
            echo "$package $(dpkg-deb -f ./"$package"_*.deb Version)"
        done
    } >"$root/versions"
    cd "$cache"
    rm -rf "${cache:?}/$folder"
    mv "$root" "$cache/$folder"
    rm -rf "$work"
    if ((EUID == 0)) && [[ -n ${SUDO_USER:-} && -z ${CCID_LAB_CACHE:-} ]]; then
        chown -R "$SUDO_USER:" "$cache/${folder%%/*}" "$cache/$folder.lock"
    fi
    say "unpacked $(versions "$folder") in $cache/$folder ($(du -sh "$cache/$folder" | cut -f1))"
}
