# Runs in a copy of this system (see test_debian_package.py): installs the packages of $1, uses
# them, removes them. Each line of its output that begins with "= " is looked at by the test.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive HOME=/tmp
unset PYTHONPATH
cd /tmp
dpkg --install "$1"/python3-ccid_*.deb "$1"/pyccid-driver_*.deb "$1"/pyccid-user-service_*.deb

for command in ccid-probe ccid-run ccid-pcscd ccid-install-driver; do
    echo "= $($command --version)"
done
echo "= library: $(python3 -c 'import ccid; print(ccid.__file__)')"
echo "= without pcscd: $(ccid-run --virtual -- python3 "$2")"

drivers=/usr/lib/pcsc/drivers/ifd-ccid-python.bundle/Contents
echo "= settings: $(readlink $drivers/Info.plist) $(grep -c 0x08E6 $drivers/Info.plist)"
ccid-install-driver --reader 08e6:3437
echo "= named: $(grep -c 0x08E6 /etc/pyccid-driver/Info.plist)"
ccid-install-driver --check && echo "= checked"

mkdir -p /run/pcscd /tmp/readers
printf 'FRIENDLYNAME "Packaged"\nDEVICENAME virtual:\nLIBPATH %s\nCHANNELID 0\n' \
    $drivers/Linux/libccid-python.so >/tmp/readers/all
polkit= # it asks over D-Bus, which is not here
if pcscd --help | grep -q -e --disable-polkit; then polkit=--disable-polkit; fi
pcscd --foreground $polkit -c /tmp/readers >/tmp/pcscd.log 2>&1 &
daemon=$!
for _ in $(seq 100); do
    if said=$(python3 "$2" 2>/tmp/client.log); then break; fi
    sleep 0.2
done
echo "= pcscd: $said"
helper=$(ls -d /proc/[0-9]* | while read -r p; do
    if tr '\0' ' ' <"$p/cmdline" | grep -q 'ccid[.]pcsc[.]plug[.]helper'; then readlink "$p/exe"; fi
done 2>/dev/null)
echo "= helper: $helper"
cat /tmp/pcscd.log /tmp/client.log
kill $daemon
wait $daemon || true

dpkg --purge pyccid-user-service pyccid-driver python3-ccid
