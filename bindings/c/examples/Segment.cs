// As segment.c, in C#, for Mono and .NET:
//
//     Segment.exe MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw
//
// An application keeps the part Native; the rest is what it would do itself.

using System;
using System.Globalization;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;

static class Native {
    const string Library = "fastnnunet";
    public const int Ok = 0, Uint8 = 1, Int16 = 3;

    [StructLayout(LayoutKind.Sequential)]
    public struct Options {
        public UIntPtr size;
        public IntPtr quality, variant, structures;
        public UIntPtr structure_count;
        public IntPtr models_dir, folds, checkpoint, postprocessing, device, precision, isa;
        public uint mirror, threads;
        public double step_size;
        public int gaussian, divide_bone, skip_air, reserved;
        public ulong memory_limit_bytes, gpu_memory_limit_bytes;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Image {
        public UIntPtr size;
        public IntPtr voxels;
        public int type, reserved;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public UIntPtr[] shape;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public IntPtr[] strides;
        public double slope, intercept;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public double[] spacing;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 12)] public double[] affine;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Structure {
        public UIntPtr size;
        public uint id, reserved;
        public IntPtr name;
        public ulong voxels;
        public double ml;
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int Progress(IntPtr user, IntPtr stage, ulong done, ulong total);

    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    static extern IntPtr fnn_error_message();
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern int fnn_image_place(ref Image image, double[] origin, double[] directions, double[] spacing);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern int fnn_open_model(byte[] name, ref Options options, out IntPtr segmenter);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern void fnn_segmenter_free(IntPtr segmenter);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern int fnn_segment_images(IntPtr segmenter, ref Image image, UIntPtr count, Progress progress, IntPtr user, out IntPtr result);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern void fnn_result_free(IntPtr result);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern UIntPtr fnn_result_structure_count(IntPtr result);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern int fnn_result_structure(IntPtr result, UIntPtr index, ref Structure structure);
    [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
    public static extern int fnn_result_copy_labels(IntPtr result, int type, byte[] first, IntPtr[] strides);

    // Texts are UTF-8 on every platform.
    public static byte[] Utf8(string text) { return Encoding.UTF8.GetBytes(text + '\0'); }

    public static string Text(IntPtr utf8) {
        int length = 0;
        while (Marshal.ReadByte(utf8, length) != 0) length++;
        var bytes = new byte[length];
        Marshal.Copy(utf8, bytes, 0, length);
        return Encoding.UTF8.GetString(bytes);
    }

    public static void Check(int status) {
        if (status != Ok) throw new InvalidOperationException(Text(fnn_error_message()) + " (" + status + ")");
    }
}

static class Segment {
    static int Tell(IntPtr user, IntPtr stage, ulong done, ulong total) {
        // No exception may leave this function: C cannot pass it on.
        try {
            if (done == total) Console.Error.WriteLine("{0}: {1} done", Native.Text(stage), done);
            return 0;
        } catch (Exception) {
            return 1;
        }
    }

    static byte[] Run(string model, short[] voxels, UIntPtr[] shape, double[] spacing) {
        var image = new Native.Image {
            size = (UIntPtr)Marshal.SizeOf(typeof(Native.Image)),
            type = Native.Int16,
            shape = shape,
            strides = new IntPtr[3],
            spacing = new double[3],
            affine = new double[12],
        };
        Native.Check(Native.fnn_image_place(ref image, new double[3], new double[] {1, 0, 0, 0, 1, 0, 0, 0, 1}, spacing));
        var precision = GCHandle.Alloc(Native.Utf8("f32"), GCHandleType.Pinned);
        // The array stays where it is while C reads it.
        var pinned = GCHandle.Alloc(voxels, GCHandleType.Pinned);
        IntPtr segmenter = IntPtr.Zero, result = IntPtr.Zero;
        // Kept alive as long as C may call it.
        Native.Progress tell = Tell;
        try {
            var options = new Native.Options {
                size = (UIntPtr)Marshal.SizeOf(typeof(Native.Options)),
                precision = precision.AddrOfPinnedObject(),
                memory_limit_bytes = 2UL << 30,
            };
            Native.Check(Native.fnn_open_model(Native.Utf8(model), ref options, out segmenter));
            image.voxels = pinned.AddrOfPinnedObject();
            Native.Check(Native.fnn_segment_images(segmenter, ref image, (UIntPtr)1, tell, IntPtr.Zero, out result));
            for (ulong i = 0; i < (ulong)Native.fnn_result_structure_count(result); i++) {
                var found = new Native.Structure { size = (UIntPtr)Marshal.SizeOf(typeof(Native.Structure)) };
                Native.Check(Native.fnn_result_structure(result, (UIntPtr)i, ref found));
                Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0} {1}: {2} voxels, {3:F2} ml",
                    found.id, Native.Text(found.name), found.voxels, found.ml));
            }
            var labels = new byte[voxels.Length];
            Native.Check(Native.fnn_result_copy_labels(result, Native.Uint8, labels, null));
            return labels;
        } finally {
            GC.KeepAlive(tell);
            Native.fnn_result_free(result);
            Native.fnn_segmenter_free(segmenter);
            pinned.Free();
            precision.Free();
        }
    }

    static int Main(string[] arguments) {
        if (arguments.Length != 9) {
            Console.Error.WriteLine("usage: Segment.exe MODEL CT.raw COLUMNS ROWS SLICES DX DY DZ LABELS.raw");
            return 1;
        }
        try {
            var shape = new UIntPtr[3];
            var spacing = new double[3];
            for (int axis = 0; axis < 3; axis++) {
                shape[axis] = (UIntPtr)ulong.Parse(arguments[2 + axis], CultureInfo.InvariantCulture);
                spacing[axis] = double.Parse(arguments[5 + axis], CultureInfo.InvariantCulture);
            }
            var bytes = File.ReadAllBytes(arguments[1]);
            var voxels = new short[bytes.Length / 2];
            Buffer.BlockCopy(bytes, 0, voxels, 0, bytes.Length);
            if ((ulong)voxels.Length != (ulong)shape[0] * (ulong)shape[1] * (ulong)shape[2])
                throw new InvalidDataException(arguments[1] + ": expected as many voxels as the shape has");
            File.WriteAllBytes(arguments[8], Run(arguments[0], voxels, shape, spacing));
            return 0;
        } catch (Exception error) {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }
}
